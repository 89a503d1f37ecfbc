//! `parent-agent run`: one enclave from its image to its end.

mod backoff;
mod ended_logs;
mod listen;
mod machine;
mod reports;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aws_request::Client;
use link::control::MAX_RUNTIME_CONFIG;
use manifest::{EnclaveName, Interval};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use crate::api::{self, Api};
use crate::attach::{self, History};
use crate::channels::Channels;
use crate::channels::allowlist::Allowlist;
use crate::channels::egress::Egress;
use crate::channels::logs::Logs;
use crate::cli::{HypervisorKind, RunArgs};
use crate::console::Console;
use crate::crash::{Crash, LastEnd};
use crate::embedded_metrics::EmbeddedMetrics;
use crate::enclave::{Cause, End};
use crate::error::Error;
use crate::event::{Event, MAX_EVENTS};
use crate::exit::Exit;
use crate::gate::{Gate, GateBoard, GateConfig};
use crate::guard::Guard;
use crate::hypervisor::Hypervisor;
use crate::launch::Launch;
use crate::losses::LostRecords;
use crate::notify::Notifier;
use crate::output::Output;
use crate::recorder::{Ended, Recorder};
use crate::report::{Report, Reporter};
use crate::resolve::Resolver;
use crate::sink::Pipeline;
use crate::state::{CONTROL_SOCKET, StateDir, Target};
use crate::status::{Board, EarlierEnd, Fixed, Pcrs};
use crate::supervisor::{Outcome, Supervisor};
use crate::{aws, diagnostics, heartbeat, ingress, limit, throttle};

use backoff::{keep_end, pause};
use ended_logs::EndedLogs;
use listen::{incoming, remove_stale};

/// How long the sinks may take for what is in the spool when the enclave goes on: the
/// next agent's do the rest.
const DETACH_TIMEOUT: Duration = Duration::from_secs(1);
/// How long it may take to record the enclave's end in its log.
const RECORD_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the API's last answers may take.
const API_TIMEOUT: Duration = Duration::from_secs(3);
/// How long standard output's last lines may take.
const OUTPUT_TIMEOUT: Duration = Duration::from_secs(2);
/// Console lines shown after an unexpected end.
const CONSOLE_TAIL: usize = 40;

/// Runs an enclave to its end. What is meant for people goes to `stderr`.
pub async fn run(args: RunArgs, stderr: &Output) -> Result<Exit, Error> {
    check(&args)?;
    // First, so that no signal is lost.
    let (events, mut receiver) = mpsc::channel(MAX_EVENTS);
    let signals = watch_signals(events.clone())?;
    let notifier = Notifier::from_environment();
    let living = tokio::spawn(notifier.clone().keep_alive());
    let result = run_after_pause(args, stderr, &notifier, events, &mut receiver).await;
    signals.abort();
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
    if let Some(pause) = pause(&args)? {
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
    let (name, state_dir) = (args.name.clone(), args.state.state_dir.clone());
    let backs_off = args.restart_backoff.is_some();
    if let Some(name) = &args.name {
        diagnostics::name_enclave(name.as_str());
    }
    let result = Box::pin(launch(args, stderr, notifier, events, receiver)).await;
    if let (Err(error), Some(name), true) = (&result, name, backs_off) {
        // One that runs is another agent's.
        if !StateDir::new(state_dir)?.is_running(&name) {
            let end = End::new(Cause::BootFailed, error.to_string());
            let (crash, lost) = (Some(Crash::BootFailure), LostRecords::default());
            keep_end(&name, &end, crash, Duration::ZERO, lost, &[]).await;
        }
    }
    result
}

/// Gets everything that the enclave needs, and runs it.
async fn launch(
    mut args: RunArgs,
    stderr: &Output,
    notifier: &Notifier,
    events: mpsc::Sender<Event>,
    receiver: &mut mpsc::Receiver<Event>,
) -> Result<Exit, Error> {
    notifier.status("gets the configuration and the image");
    let (output, writer) = Output::new(tokio::io::stdout());
    let reporter = Reporter::new(&output, stderr, args.json);
    let launch = tokio::select! {
        launch = Launch::resolve(&mut args, &reporter) => launch?,
        // What was fetched so far stays.
        () = stop_asked(receiver) => return Ok(Exit::Success),
    };
    let Launch {
        path,
        image,
        runtime_config,
        gate,
        metrics,
        region,
        aws_services,
    } = launch;
    // The configuration may have added something.
    check(&args)?;
    let gate = match gate {
        Some(config) => {
            let client = aws::client(region.as_deref()).await;
            Some((config, client.map_err(Error::Gate)?))
        }
        None => None,
    };
    let name = match &args.name {
        Some(name) => name.clone(),
        None => image.host().name.clone(),
    };
    diagnostics::name_enclave(name.as_str());
    let state = StateDir::new(args.state.state_dir.clone())?;
    let mut guard = acquire(&state, &name, &args, &reporter).await?;
    let directory = guard.directory().to_owned();
    let run = Run {
        runtime_config,
        pcrs: image.measurements().into(),
        target: state.target(&name),
        name,
        output,
        reporter,
        notifier: notifier.clone(),
        events,
        host: image.host().clone(),
        image_bytes: image.size(),
        path,
        gate,
        metrics,
        region,
        aws_services,
        args: &args,
    };
    let result = match args.hypervisor {
        HypervisorKind::Sim => {
            let sim = run.sim(image, &directory);
            run.serve(sim, &mut guard, receiver).await
        }
        HypervisorKind::Nitro => {
            let nitro = run.nitro(&image);
            run.serve(nitro, &mut guard, receiver).await
        }
        HypervisorKind::Qemu => {
            let qemu = run.qemu(&image, &directory);
            run.serve(qemu, &mut guard, receiver).await
        }
    };
    let cleaned = if guard.is_ours() && !matches!(result, Ok(Exit::Detached)) {
        guard.finish().await
    } else {
        guard.detach();
        Ok(())
    };
    // What is still to be printed is waited for, but not for ever.
    let _ = timeout(OUTPUT_TIMEOUT, writer).await;
    let exit = result?;
    cleaned?;
    Ok(exit)
}

/// A guard with a new folder, or with an enclave that runs. One that ended while
/// it had no agent is reported and removed.
async fn acquire(
    state: &StateDir,
    name: &EnclaveName,
    args: &RunArgs,
    reporter: &Reporter,
) -> Result<Guard, Error> {
    loop {
        let console = Console::new(args.console.then(|| reporter.clone()));
        let mut guard = attach::acquire(state, name, &console).await?;
        if !guard.attached().is_some_and(|attached| attached.ended) {
            return Ok(guard);
        }
        let detail = match guard.exited().await {
            Ok(exit) => exit.to_string(),
            Err(error) => error.to_string(),
        };
        reporter.report(&Report::EndedAlone {
            detail: &detail,
            console: &console.tail(CONSOLE_TAIL),
        });
        guard.finish().await?;
    }
}

/// What does not go together.
fn check(args: &RunArgs) -> Result<(), Error> {
    if args.debug && args.hypervisor == HypervisorKind::Qemu {
        return Err(Error::Usage(
            "--debug does not work with --hypervisor qemu, whose machine always measures",
        ));
    }
    if args.software_nsm_root.is_some() && args.hypervisor != HypervisorKind::Sim {
        return Err(Error::Usage(
            "--software-nsm-root works only with --hypervisor sim: other machines have an NSM of their own",
        ));
    }
    Ok(())
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

/// Turns SIGTERM and SIGINT into requests to stop; a second one insists.
fn watch_signals(events: mpsc::Sender<Event>) -> Result<JoinHandle<()>, Error> {
    let mut terminate =
        signal(SignalKind::terminate()).map_err(Error::system("signals cannot be received"))?;
    let mut interrupt =
        signal(SignalKind::interrupt()).map_err(Error::system("signals cannot be received"))?;
    Ok(tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            let stop = Event::Stop {
                grace: None,
                insists: true,
            };
            if events.send(stop).await.is_err() {
                return;
            }
        }
    }))
}

/// Gives the recorder, which knows that it is the end, the time for its last record.
async fn finish_recording(mut recording: JoinHandle<()>) {
    if timeout(RECORD_TIMEOUT, &mut recording).await.is_err() {
        recording.abort();
        // It ends as it is aborted, and the history with it.
        let _ = recording.await;
    }
}

/// What an enclave is run with.
struct Run<'a> {
    args: &'a RunArgs,
    name: EnclaveName,
    target: Target,
    host: manifest::HostConfig,
    pcrs: Pcrs,
    runtime_config: link::Bytes<MAX_RUNTIME_CONFIG>,
    output: Output,
    reporter: Reporter,
    notifier: Notifier,
    events: mpsc::Sender<Event>,
    /// The image's file.
    path: PathBuf,
    /// Its size.
    image_bytes: u64,
    gate: Option<(GateConfig, Client)>,
    metrics: Option<EmbeddedMetrics>,
    region: Option<String>,
    aws_services: Option<Vec<String>>,
}

impl Run<'_> {
    /// Where the workload may connect to.
    async fn allowlist(&self) -> Allowlist {
        let wanted = self.aws_services.as_deref();
        let missing = wanted.unwrap_or_default().iter().filter(|name| {
            let mut services = self.host.aws_services.iter();
            !services.any(|service| service.name() == name.as_str())
        });
        for service in missing {
            warn!(
                service,
                "the image's manifest does not have this AWS service, so it stays closed but for the manifest's egress rules: add it to `aws_services` in enclave.toml, or take it out of the configuration"
            );
        }
        let region = match &self.region {
            _ if self.host.aws_services.is_empty() => None,
            Some(region) => Some(region.clone()),
            None => aws::region().await,
        };
        if region.is_none() && !self.host.aws_services.is_empty() {
            warn!(
                "no AWS region is known, so the manifest's AWS services are open in every region: set AWS_REGION"
            );
        }
        Allowlist::new(&self.host, wanted, region)
    }

    /// Opens everything, follows the enclave to its end, closes everything.
    async fn serve<H: Hypervisor>(
        self,
        mut hypervisor: H,
        guard: &mut Guard,
        receiver: &mut mpsc::Receiver<Event>,
    ) -> Result<Exit, Error> {
        let result = Box::pin(self.serve_until_end(&mut hypervisor, guard, receiver)).await;
        hypervisor.finish().await;
        result
    }

    async fn serve_until_end<H: Hypervisor>(
        self,
        hypervisor: &mut H,
        guard: &mut Guard,
        receiver: &mut mpsc::Receiver<Event>,
    ) -> Result<Exit, Error> {
        let facts = self.prepare(hypervisor, guard).await?;
        let age = guard.attached().map(|attached| attached.age);
        let ports = ingress::open(&self.host.ingress, &self.args.publish)?;
        let (egress, limits) = self.limited().await;
        let pipeline = self.pipeline().await?;
        let logs = Arc::new(Logs::new(Arc::clone(pipeline.spool())));
        let outcome = self
            .gate
            .as_ref()
            .map(|(config, _)| Arc::new(GateBoard::new(config.function.as_str())));
        let now = Instant::now();
        let start = now.checked_sub(age.unwrap_or_default()).unwrap_or(now);
        let board = Arc::new(Board::new(
            self.fixed::<H>(),
            start,
            facts.history().clone(),
            ports.clone(),
            Arc::clone(&egress),
            Arc::clone(pipeline.telemetry()),
            outcome.clone(),
        ));

        // Dropping the set ends what is served.
        let mut tasks = JoinSet::new();
        let (listen, peer) = (hypervisor.listen(), hypervisor.started().cid);
        let channels = Arc::new(Channels {
            events: self.events.clone(),
            logs: Arc::clone(&logs),
            egress,
            peer,
        });
        tasks.spawn(throttle::summarise());
        tasks.spawn(channels.serve(incoming(&listen.agent, peer).await?));
        tasks.spawn(heartbeat::serve(
            incoming(&listen.heartbeat, peer).await?,
            peer,
            self.events.clone(),
        ));
        self.watch(&mut tasks, &board, outcome).await?;
        let (history, changes) = watch::channel(facts.history().clone());
        let (last_record, is_last) = oneshot::channel();
        let recorder = self.recorder(&board, &pipeline, history.clone());
        let recording = tokio::spawn(recorder.run(is_last));
        let (ended, end) = watch::channel(None);
        let api = self.serve_api(guard.directory(), &board, end)?;

        self.report_start(guard, hypervisor, &facts, &ports);
        let keep_for = self.args.keep_for.map(Interval::as_duration);
        let mut supervisor = Supervisor::new(
            self.args.boot_timeout.as_duration(),
            self.runtime_config.clone(),
            keep_for,
            history,
            board,
            self.reporter.clone(),
            self.notifier.clone(),
        );
        if age.is_some() {
            supervisor.attach(self.args.boot_timeout.as_duration());
        }
        let keeping = tokio::spawn(facts.keep(guard.directory().to_owned(), changes));
        let result = supervisor
            .follow(hypervisor, guard, receiver, |started| {
                for port in ports {
                    tasks.spawn(port.serve(started.init.clone(), Arc::clone(&limits)));
                }
            })
            .await;
        let exit = match result {
            Ok(Outcome::Detached) => {
                // The next agent binds the same sockets, and opens the same spool.
                tasks.shutdown().await;
                drop(last_record);
                finish_recording(recording).await;
                // What was told is for the next agent to know.
                let _ = keeping.await;
                pipeline.finish(DETACH_TIMEOUT).await;
                self.report_detached(keep_for).await;
                ended.send_replace(Some(Outcome::Detached));
                Exit::Detached
            }
            result => {
                // What is left of the machine must not keep the log connection open.
                let _ = guard.kill().await;
                let logs = EndedLogs::take(pipeline, logs).await;
                if let Ok(Outcome::Ended(end)) = &result {
                    let crash = Crash::of(end, &guard.console().tail(CONSOLE_TAIL));
                    // The task ends only with this one.
                    let _ = last_record.send(Ended::new(end, crash));
                } else {
                    drop(last_record);
                }
                finish_recording(recording).await;
                // Nobody must write in the folder while it is removed.
                let _ = keeping.await;
                let (lines, lost) = logs.finish().await;
                let outcome = result?;
                let exit = self
                    .report_end(&outcome, start.elapsed(), lost, guard.console(), &lines)
                    .await;
                ended.send_replace(Some(outcome));
                exit
            }
        };
        let _ = timeout(API_TIMEOUT, api).await;
        Ok(exit)
    }

    /// Serves those who want to know how the enclave is.
    async fn watch(
        &self,
        tasks: &mut JoinSet<()>,
        board: &Arc<Board>,
        outcome: Option<Arc<GateBoard>>,
    ) -> Result<(), Error> {
        if let Some(address) = self.args.logs.metrics {
            tasks.spawn(listen::metrics(address, Arc::clone(board)).await?);
        }
        if let Some(gate) = self.gate(board, outcome) {
            tasks.spawn(gate.serve());
        }
        Ok(())
    }

    /// Both directions of traffic, within their limits.
    async fn limited(&self) -> (Arc<Egress>, Arc<ingress::Limits>) {
        let (out, into) = (self.args.limits.egress(), self.args.limits.ingress());
        let (egress, ingress) = limit::connections(out, into);
        let ingress = ingress.min(self.carried());
        let resolver = Resolver::from_system(&self.args.connect_to);
        let allowlist = self.allowlist().await;
        (
            Arc::new(Egress::new(allowlist, resolver, egress, out.rate)),
            Arc::new(ingress::Limits::new(ingress, into.rate)),
        )
    }

    /// Who asks the gate, if there is one.
    fn gate(&self, board: &Arc<Board>, outcome: Option<Arc<GateBoard>>) -> Option<Gate> {
        let (config, client) = self.gate.clone()?;
        Some(Gate {
            config,
            client,
            board: Arc::clone(board),
            outcome: outcome?,
            events: self.events.clone(),
            reporter: self.reporter.clone(),
        })
    }

    /// The way of the log records, from the enclave to the sinks.
    async fn pipeline(&self) -> Result<Pipeline, Error> {
        let pipeline = Pipeline::open(
            self.args.logs.pipeline(&self.name, self.region.clone()),
            &self.name,
            self.output.clone(),
            self.args.json,
        )
        .await?;
        Ok(pipeline)
    }

    /// Who adds the agent's own records to the log.
    fn recorder(
        &self,
        board: &Arc<Board>,
        pipeline: &Pipeline,
        history: watch::Sender<History>,
    ) -> Recorder {
        Recorder::new(
            Arc::clone(board),
            Arc::clone(pipeline.spool()),
            self.metrics.clone(),
            pipeline.has_remote(),
            history,
        )
    }

    fn fixed<H: Hypervisor>(&self) -> Fixed {
        Fixed {
            name: self.name.to_string(),
            image: self.path.display().to_string(),
            hypervisor: H::NAME,
            debug: self.args.debug,
            pcrs: self.pcrs.clone(),
            last_end: LastEnd::read(&self.name).map(EarlierEnd::from),
        }
    }

    fn serve_api(
        &self,
        directory: &Path,
        board: &Arc<Board>,
        ended: watch::Receiver<Option<Outcome>>,
    ) -> Result<JoinHandle<()>, Error> {
        let path = directory.join(CONTROL_SOCKET);
        remove_stale(&path);
        let listener = api::listen(&path).map_err(|source| Error::Socket {
            path: path.display().to_string(),
            source,
        })?;
        let api = Api {
            board: Arc::clone(board),
            events: self.events.clone(),
            ended,
        };
        Ok(tokio::spawn(Arc::new(api).serve(listener)))
    }
}
