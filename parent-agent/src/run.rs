//! `parent-agent run`: one enclave from its image to its end.

use std::time::Duration;

use enclave_host::hypervisor::{HypervisorConfig, Nitro, Qemu, Sim};
use log_sinks::Output;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tracing::info;

use crate::crash::Backoff;
use crate::diagnostics;
use crate::error::Error;
use crate::event::{Event, MAX_EVENTS};
use crate::exit::Exit;
use crate::gate::GateClient;
use crate::machine::Machine;
use crate::notify::Notifier;
use crate::report::Reporter;
use crate::run_config::{RunArgs, RunConfig};
use crate::session::Session;
use crate::signals;
use crate::supervisor::Outcome;

/// How long standard output's last lines may take.
const OUTPUT_TIMEOUT: Duration = Duration::from_secs(2);

/// Runs an enclave to its end. What is meant for people goes to `stderr`.
pub async fn run(args: RunArgs, stderr: &Output) -> Result<Exit, Error> {
    // First, so that no signal is lost.
    let (events, mut receiver) = mpsc::channel(MAX_EVENTS);
    let watching = signals::watch(events.clone())?;
    let notifier = Notifier::from_environment();
    let living = tokio::spawn(notifier.clone().keep_alive());
    let result = run_after_pause(args, stderr, &notifier, events, &mut receiver).await;
    watching.abort();
    living.abort();
    if matches!(result, Ok(Exit::Success)) {
        // Also one that was told to stop before it was ready has done its work.
        notifier.ready();
    }
    result
}

/// Waits if the enclave has crashed, then runs it, and leaves a trace if it could
/// not be started.
async fn run_after_pause(
    args: RunArgs,
    stderr: &Output,
    notifier: &Notifier,
    events: mpsc::Sender<Event>,
    receiver: &mut mpsc::Receiver<Event>,
) -> Result<Exit, Error> {
    let backoff = args.backoff()?;
    if let Some(pause) = backoff.as_ref().and_then(Backoff::pause) {
        info!(
            seconds = pause.as_secs(),
            "the enclave has crashed, and is started again later"
        );
        notifier.status(&format!(
            "waits {} s: the enclave has crashed",
            pause.as_secs()
        ));
        tokio::select! {
            () = sleep(pause) => {}
            () = stop_asked(receiver) => return Ok(Exit::Success),
        }
    }
    if let Some(name) = &args.name {
        diagnostics::name_enclave(name.as_str());
    }
    let result = Box::pin(serve(args, stderr, notifier, events, receiver)).await;
    match (&result, backoff) {
        // Arguments that do not go together are no crash.
        (Ok(_) | Err(Error::Usage(_)), _) | (_, None) => {}
        (Err(error), Some(backoff)) => backoff.failed(error.to_string()).await,
    }
    result
}

/// Gets everything that the enclave needs, and serves it.
async fn serve(
    args: RunArgs,
    stderr: &Output,
    notifier: &Notifier,
    events: mpsc::Sender<Event>,
    receiver: &mut mpsc::Receiver<Event>,
) -> Result<Exit, Error> {
    notifier.status("gets the configuration and the image");
    let (stdout, writer) = Output::new(tokio::io::stdout());
    let reporter = Reporter::new(&stdout, stderr, args.json);
    // What is to be printed is waited for until nobody prints any more.
    drop(stdout);
    let config = tokio::select! {
        config = RunConfig::resolve(args, &reporter) => config?,
        // What was fetched so far stays.
        () = stop_asked(receiver) => return Ok(Exit::Success),
    };
    let RunConfig {
        machine,
        hypervisor,
        gate,
        session,
    } = config;
    let gate = match gate {
        Some(config) => {
            let client = GateClient::new(config, session.region()).await;
            Some(client.map_err(Error::Gate)?)
        }
        None => None,
    };
    diagnostics::name_enclave(machine.name.as_str());
    let guard = machine.acquire(&reporter).await?;
    let session = Session {
        config: session,
        gate,
        reporter,
        notifier: notifier.clone(),
        events,
    };
    let directory = guard.directory();
    let result = match hypervisor {
        HypervisorConfig::Sim(image, options) => {
            let sim = Sim::new(*image, options, directory);
            session
                .serve(Machine::new(machine, sim, guard), receiver)
                .await
        }
        HypervisorConfig::Nitro(options) => {
            let nitro = Nitro::new(options);
            session
                .serve(Machine::new(machine, nitro, guard), receiver)
                .await
        }
        HypervisorConfig::Qemu(options) => {
            let qemu = Qemu::new(options, directory);
            session
                .serve(Machine::new(machine, qemu, guard), receiver)
                .await
        }
    };
    // What is still to be printed is waited for, but not for ever.
    let _ = timeout(OUTPUT_TIMEOUT, writer).await;
    Ok(match result? {
        Outcome::Ended(end) => end.cause.exit(),
        Outcome::Detached => Exit::Detached,
    })
}

/// Waits until somebody wants the enclave to stop that is not there yet.
async fn stop_asked(events: &mut mpsc::Receiver<Event>) {
    loop {
        match events.recv().await {
            Some(Event::Stop { .. }) => return,
            Some(_) => {}
            // There is always a sender: the one that new ones are made from.
            None => std::future::pending().await,
        }
    }
}
