//! From start to power-off.

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use link::control::{EndCause, ExitStatus, FromInit, HealthState, Losses};
use link::{EndCode, Text};
use manifest::{Environment, MAX_SECRETS, MeasuredConfig};
use nix::unistd::{Pid, getpid};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::args::{Arguments, Simulation};
use crate::boot::{Booted, Failed, boot};
use crate::control::{self, Closing, Handle, Parts};
use crate::exit::{EXIT_FAILED, EXIT_NAMESPACES, EXIT_ORDERLY, EXIT_USAGE};
use crate::family::FamilyKeys;
use crate::logs::Logs;
use crate::signals::Signals;
use crate::steps::Steps;
use crate::supervisor::{End, Outputs, Requests, Supervisor};
use crate::workload::{Given, kill_all};
use crate::{clock, confinement, limits, panic, sim};

/// How long the parent may take none of the last log records.
const STALL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long they may take to leave in all, where the parent takes some.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
/// The same when the parent has asked for the end: it waits no longer.
const SHUTDOWN_DRAIN_TIMEOUT: Duration = Duration::from_secs(7);
/// How long it may take to count the output that nobody takes any more.
const COUNT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the last message may take to leave.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(2);

/// Runs the init. As PID 1 of a machine it does not return.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let start = Instant::now();
    match Arguments::parse(arguments, getpid() == Pid::from_raw(1)) {
        Err(error) => {
            say(&error);
            EXIT_USAGE.into()
        }
        Ok(Arguments::Launcher(simulation)) => match sim::launch(&simulation) {
            Ok(code) => u8::try_from(code).unwrap_or(EXIT_FAILED).into(),
            Err(sim::LaunchError::Namespaces(error)) => {
                say(&error);
                EXIT_NAMESPACES.into()
            }
            Err(sim::LaunchError::Process(error)) => {
                say(&format!("PID 1 failed: {error}"));
                EXIT_FAILED.into()
            }
        },
        Ok(Arguments::Simulated(simulation)) => {
            if let Err(error) = sim::tie_to_launcher() {
                say(&format!("PID 1 cannot be tied to its launcher: {error}"));
                return EXIT_FAILED.into();
            }
            if run(start, Some(&simulation)) {
                EXIT_ORDERLY.into()
            } else {
                EXIT_FAILED.into()
            }
        }
        Ok(Arguments::Reaper) => confinement::reap(),
        Ok(Arguments::Companion) => confinement::accompany(),
        Ok(Arguments::Machine) => {
            run(start, None);
            power_off()
        }
    }
}

/// Boots and supervises; true after an orderly end.
fn run(start: Instant, simulation: Option<&Simulation>) -> bool {
    limits::set();
    panic::install(match simulation {
        Some(_) => || (),
        None => || {
            power_off();
        },
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => {
            let is_orderly = runtime.block_on(live(start, simulation));
            // A look at a process may still be waiting for it.
            runtime.shutdown_background();
            is_orderly
        }
        Err(error) => {
            say(&format!("the runtime cannot start: {error}"));
            false
        }
    }
}

async fn live(start: Instant, simulation: Option<&Simulation>) -> bool {
    let mut signals = match Signals::new() {
        Ok(signals) => signals,
        Err(error) => {
            say(&format!("signals cannot be received: {error}"));
            return false;
        }
    };
    let booted = tokio::select! {
        booted = boot(start, simulation) => booted,
        () = signals.shutdown() => {
            say("told to end before the boot was over");
            return true;
        }
    };
    match booted {
        Ok(booted) => supervise(booted, signals).await,
        Err(failed) => {
            report(failed).await;
            false
        }
    }
}

/// Tells the console and the parent why the boot failed.
async fn report(failed: Failed) {
    let step = failed
        .code
        .boot_step()
        .expect("steps of the boot have its codes");
    let detail = format!("boot step {step} failed: {}", failed.error);
    say(&detail);
    let message = FromInit::Ending {
        cause: EndCause::BootFailed,
        detail: Text::new(detail),
        code: EndCode::text(Some(failed.code)),
        // Nothing is recorded before the boot is over.
        losses: Losses::default(),
        numbered: Vec::new(),
        workload: None,
    };
    // The console has it already.
    let _ = timeout(FAREWELL_TIMEOUT, failed.tell(&message)).await;
}

async fn supervise(booted: Booted, signals: Signals) -> bool {
    let Booted {
        config,
        workload,
        agent,
        session,
        boot,
        nsm,
        self_check,
        clock,
        clock_lines,
        logs,
        services,
        mut steps,
    } = booted;
    let (credentials, secrets, keys) = (services.credentials, services.secrets, services.keys);
    let parts = Parts {
        agent,
        boot,
        nsm,
        self_check: self_check.message(),
        credentials: credentials.clone(),
        secrets: secrets.clone(),
        keys: keys.clone(),
        readiness: services.readiness,
        logs: logs.clone(),
        pressure: services.pressure,
        kms: services.kms,
    };
    let ingress = Arc::clone(&parts.pressure.ingress);
    panic::count_losses_of(&logs);
    let (handle, shutdown, closing) = control::start(parts, session);
    let (signal, changes) = mpsc::channel(MAX_SECRETS);
    let mut requests = Requests::new(signals, shutdown, changes);
    let given = Given {
        credentials: credentials.as_ref(),
        secrets: secrets.as_ref(),
    };
    let told = waits("secrets", &logs, &handle);
    let missing = match await_given(given, &config, &mut steps, &mut requests, told).await {
        Ok(missing) => missing,
        Err(end) => return farewell(end, &logs, closing).await,
    };
    if let Some(keys) = &keys {
        let told = waits("keys", &logs, &handle);
        if let Err(end) = await_keys(keys, &logs, &mut steps, &mut requests, told).await {
            return farewell(end, &logs, closing).await;
        }
    }
    let confinements = workload.confinements();
    // What the workload need not wait for.
    let booted = || {
        for line in steps.lines() {
            logs.system(line);
        }
        self_check.log(&logs);
        if let Some(missing) = missing.credentials {
            logs.error(format!("credentials: {missing}"));
        }
        if let Some(secrets) = &secrets {
            secrets.report(&missing.secrets, &logs);
            secrets.keep(&signal, &logs);
        }
        if let Some(lowered) = confinements.lowered() {
            logs.system(lowered);
        }
        if let Some(unlimited) = confinements.unlimited() {
            logs.system(unlimited);
        }
        if !logs.is_released() {
            logs.system("logs: the image's policy keeps the workload's lines inside the enclave");
        }
        steps.messages().for_each(|message| handle.tell(message));
        tokio::spawn(clock::keep(
            clock,
            clock_lines,
            handle.clone(),
            logs.clone(),
        ));
        confinements.report(&config.workloads, &handle, &logs);
    };
    let supervisor = Supervisor {
        config: &config,
        confinements: &confinements,
        logs: &logs,
        handle: &handle,
        given,
        ingress: &ingress,
        elapsed_us: &|| steps.elapsed_us(),
    };
    let end = supervisor.run(workload, requests, booted).await;
    farewell(end, &logs, closing).await
}

/// Tells the log and the agent what the workload's start waits for.
fn waits(subject: &'static str, logs: &Logs, handle: &Handle) -> impl Fn(String) {
    move |detail: String| {
        if !detail.is_empty() {
            logs.system(format!("{subject}: the workload's start {detail}"));
        }
        handle.set_health(HealthState::Starting, detail);
    }
}

/// What the workload is started without, and why.
struct Missing {
    credentials: Option<String>,
    secrets: Vec<String>,
}

/// Waits for what the workload is started with, and calls `waits` with what somebody has
/// to do for it. The error is the end of an enclave whose workload is not started.
async fn await_given(
    given: Given<'_>,
    config: &MeasuredConfig,
    steps: &mut Steps,
    requests: &mut Requests,
    waits: impl Fn(String),
) -> Result<Missing, End> {
    let shutdown = || End::shutdown(Outputs::default());
    let mut missing = Missing {
        credentials: None,
        secrets: Vec::new(),
    };
    let no_environment = Environment::default();
    if let Some(credentials) = given.credentials {
        // They, and the region, are part of what the workload is started with.
        let mut workloads = config.workloads.iter();
        let environment = workloads
            .find(|workload| workload.aws_credentials)
            .map_or(&no_environment, |workload| &workload.env);
        let answered = credentials.answered(environment);
        let awaited = steps.wait("credentials", async {
            tokio::select! {
                answered = answered => Some(answered),
                _ = requests.shutdown() => None,
            }
        });
        missing.credentials = awaited.await.ok_or_else(shutdown)?.err();
    }
    if let Some(secrets) = given.secrets {
        let opened = secrets.open(waits);
        let opened = steps.wait("secrets", async {
            tokio::select! {
                opened = opened => Some(opened),
                _ = requests.shutdown() => None,
            }
        });
        let opened = opened.await.ok_or_else(shutdown)?;
        missing.secrets = opened.map_err(|reason| End {
            cause: EndCause::BootFailed,
            detail: format!("boot step secrets failed: {reason}"),
            code: Some(EndCode::BootSecrets),
            workload: None,
            outputs: Outputs::default(),
        })?;
    }
    Ok(missing)
}

/// Waits for the seed of the family, and calls `waits` with what somebody has to do for it.
/// The error is the end of an enclave that has none.
async fn await_keys(
    keys: &FamilyKeys,
    logs: &Logs,
    steps: &mut Steps,
    requests: &mut Requests,
    waits: impl Fn(String),
) -> Result<(), End> {
    let opened = steps.wait("keys", async {
        tokio::select! {
            opened = keys.open(logs, waits) => Some(opened),
            _ = requests.shutdown() => None,
        }
    });
    let opened = opened
        .await
        .ok_or_else(|| End::shutdown(Outputs::default()))?;
    opened.map_err(|reason| End {
        cause: EndCause::BootFailed,
        detail: format!("boot step keys failed: {reason}"),
        code: Some(EndCode::BootKeys),
        workload: None,
        outputs: Outputs::default(),
    })
}

/// Lets the last records and the last message leave.
async fn farewell(mut end: End, logs: &Logs, closing: Closing) -> bool {
    // Code 0 may be that of a workload that was stopped for its health.
    let orderly = end.code.is_none()
        && matches!(
            end.cause,
            EndCause::Shutdown | EndCause::WorkloadExited(ExitStatus::Code(0))
        );
    kill_all();
    let limit = match end.cause {
        EndCause::Shutdown => SHUTDOWN_DRAIN_TIMEOUT,
        _ => DRAIN_TIMEOUT,
    };
    let begun = Instant::now();
    let taken = timeout(limit, async {
        end.outputs.finished().await;
        if orderly {
            logs.system(format!("ending: {}", end.detail));
        } else {
            say(&end.detail);
            logs.error(format!("ending: {}", end.detail));
        }
        logs.drain().await;
    });
    let is_taken = tokio::select! {
        taken = taken => taken.is_ok(),
        () = logs.stalled(STALL_TIMEOUT) => false,
    };
    if !is_taken {
        say(&format!(
            "the parent did not take the last log records within {} s",
            begun.elapsed().as_secs()
        ));
        logs.abandon();
        // What is still in the pipes is counted too; their writers are gone.
        let _ = timeout(COUNT_TIMEOUT, end.outputs.finished()).await;
    }
    let losses = logs.losses();
    if !losses.0.is_empty() {
        let records: u64 = losses.0.iter().map(|loss| loss.records).sum();
        say(&format!("{records} log records were lost"));
    }
    let message = FromInit::Ending {
        cause: end.cause,
        detail: Text::new(end.detail),
        code: EndCode::text(end.code),
        losses,
        numbered: logs.numbered(),
        workload: end.workload.as_deref().map(Text::new),
    };
    closing.close(message, FAREWELL_TIMEOUT).await;
    orderly
}

/// Ends the machine, as AWS's init does: the hypervisor takes a reset for the
/// end. Where there is no reset, PID 1 returns and the kernel panics.
fn power_off() -> ExitCode {
    nix::unistd::sync();
    let error = nix::sys::reboot::reboot(nix::sys::reboot::RebootMode::RB_AUTOBOOT);
    say(&format!("the machine does not power off: {error:?}"));
    ExitCode::FAILURE
}

/// Writes to the console, if there is one.
fn say(text: &str) {
    // Not `eprintln!`, which panics when whoever read the console is gone.
    let _ = writeln!(io::stderr(), "enclave-init: {text}");
}
