//! From start to power-off.

use std::ffi::OsString;
use std::io;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use link::Text;
use link::control::{EndCause, ExitStatus, FromInit, HealthState};
use manifest::WorkloadKind;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getpid};
use tokio::net::unix::pipe;
use tokio::signal::unix::{Signal as SignalStream, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{sleep, sleep_until, timeout};

use crate::args::{Arguments, Simulation};
use crate::boot::{Booted, Failed, boot};
use crate::control::{self, Closing, Handle, Parts, Shutdown};
use crate::error::InitError;
use crate::logs::Logs;
use crate::workload::{self, Restarts, describe};
use crate::{health, sim};

/// Exit code of a simulated enclave that was shut down, or whose batch workload succeeded.
pub const EXIT_ORDERLY: u8 = 0;
/// Exit code of a simulated enclave that failed.
pub const EXIT_FAILED: u8 = 1;
/// Exit code after wrong arguments.
pub const EXIT_USAGE: u8 = 2;
/// Exit code when the machine does not permit namespaces.
pub const EXIT_NAMESPACES: u8 = 3;

/// How long the last log records may take to leave.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the last message may take to leave.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a workload that is not ready yet is probed.
const STARTING_PROBE_INTERVAL: Duration = Duration::from_millis(50);

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
            // The launcher's end is the enclave's.
            let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
            let orderly = run(start, Some(&simulation));
            if orderly {
                EXIT_ORDERLY.into()
            } else {
                EXIT_FAILED.into()
            }
        }
        Ok(Arguments::Machine) => {
            run(start, None);
            power_off()
        }
    }
}

/// Boots and supervises; true after an orderly end.
fn run(start: Instant, simulation: Option<&Simulation>) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(async {
            match boot(start, simulation).await {
                Ok(booted) => supervise(booted, simulation.is_some()).await,
                Err(failed) => {
                    report(failed).await;
                    false
                }
            }
        }),
        Err(error) => {
            say(&format!("the runtime cannot start: {error}"));
            false
        }
    }
}

async fn report(failed: Failed) {
    let detail = format!("boot step {} failed: {}", failed.step, failed.error);
    say(&detail);
    let message = FromInit::Ending {
        cause: EndCause::BootFailed,
        detail: Text::new(detail),
    };
    let telling = async {
        match (failed.session, failed.parent) {
            (Some(mut session), _) => drop(session.end(&message).await),
            (None, Some(parent)) => {
                control::report_failure(&parent.agent(), &failed.boot, &message).await;
            }
            (None, None) => {}
        }
    };
    // The console has it already.
    let _ = timeout(FAREWELL_TIMEOUT, telling).await;
}

/// Everything that supervision listens to.
struct Events {
    child: SignalStream,
    terminate: SignalStream,
    interrupt: SignalStream,
    shutdown: mpsc::Receiver<Shutdown>,
}

/// Why the workload's supervision ended.
struct End {
    cause: EndCause,
    detail: String,
}

async fn supervise(booted: Booted, simulated: bool) -> bool {
    let Booted {
        config,
        parent,
        session,
        boot,
        nsm,
        logs,
        release,
        steps,
    } = booted;
    let parts = Parts {
        agent: parent.agent(),
        boot,
        nsm,
        logs: logs.clone(),
    };
    let (handle, shutdown, closing) = control::start(parts, session);
    for line in steps.lines() {
        logs.system(line);
    }
    if !release {
        logs.system("logs: the image's policy keeps the workload's lines inside the enclave");
    }
    steps.messages().for_each(|message| handle.tell(message));

    let end = match Events::new(shutdown) {
        Err(error) => End {
            cause: EndCause::InitFailed,
            detail: format!("signals cannot be received: {error}"),
        },
        Ok(mut events) => {
            let supervisor = Supervisor {
                config: &config,
                simulated,
                release,
                logs: &logs,
                handle: &handle,
                elapsed_us: &|| steps.elapsed_us(),
            };
            supervisor.run(&mut events).await
        }
    };
    farewell(end, &logs, closing).await
}

async fn farewell(end: End, logs: &Logs, closing: Closing) -> bool {
    let orderly = matches!(
        end.cause,
        EndCause::Shutdown | EndCause::WorkloadExited(ExitStatus::Code(0))
    );
    if orderly {
        logs.system(format!("ending: {}", end.detail));
    } else {
        say(&end.detail);
        logs.error(format!("ending: {}", end.detail));
    }
    workload::kill_all();
    logs.drain(DRAIN_TIMEOUT).await;
    let message = FromInit::Ending {
        cause: end.cause,
        detail: Text::new(end.detail),
    };
    closing.close(message, FAREWELL_TIMEOUT).await;
    orderly
}

impl Events {
    fn new(shutdown: mpsc::Receiver<Shutdown>) -> io::Result<Self> {
        Ok(Self {
            child: signal(SignalKind::child())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            shutdown,
        })
    }

    /// A request to shut down, by the agent or by signal.
    async fn shutdown(&mut self) -> Shutdown {
        tokio::select! {
            Some(shutdown) = self.shutdown.recv() => shutdown,
            _ = self.terminate.recv() => Shutdown { grace: None },
            _ = self.interrupt.recv() => Shutdown { grace: None },
        }
    }
}

struct Supervisor<'a> {
    config: &'a manifest::MeasuredConfig,
    simulated: bool,
    release: bool,
    logs: &'a Logs,
    handle: &'a Handle,
    elapsed_us: &'a dyn Fn() -> u64,
}

impl Supervisor<'_> {
    /// Runs the workload, again and again as its policy says.
    async fn run(&self, events: &mut Events) -> End {
        let workload = &self.config.workload;
        let mut restarts = Restarts::new(workload.kind, workload.restart);
        loop {
            let started = Instant::now();
            let (pid, outputs) = match self.start() {
                Ok(started) => started,
                Err(error) => {
                    return End {
                        cause: EndCause::BootFailed,
                        detail: error.to_string(),
                    };
                }
            };
            let status = match self.watch(pid, events).await {
                Watched::Exited(status) => status,
                Watched::Shutdown(shutdown) => {
                    self.stop(pid, shutdown, events).await;
                    finish(outputs).await;
                    return End {
                        cause: EndCause::Shutdown,
                        detail: "shut down as asked".to_owned(),
                    };
                }
            };
            finish(outputs).await;
            let delay = restarts.next(status, started.elapsed());
            self.handle
                .set_health(HealthState::Starting, describe(status));
            let restart_in_ms =
                delay.map(|delay| u64::try_from(delay.as_millis()).unwrap_or(u64::MAX));
            self.handle.tell(FromInit::WorkloadExited {
                status,
                restart_in_ms,
            });
            let Some(delay) = delay else {
                let what = if workload.kind == WorkloadKind::Batch {
                    "the batch"
                } else {
                    "the workload"
                };
                let detail = format!("{what} ended with {}", describe(status));
                return End {
                    cause: EndCause::WorkloadExited(status),
                    detail,
                };
            };
            self.logs.error(format!(
                "the workload ended with {}; restart in {delay:?}",
                describe(status)
            ));
            tokio::select! {
                () = sleep(delay) => {}
                _ = events.shutdown() => {
                    return End { cause: EndCause::Shutdown, detail: "shut down as asked, between restarts".to_owned() };
                }
            }
        }
    }

    fn start(&self) -> Result<(Pid, Vec<tokio::task::JoinHandle<()>>), InitError> {
        let running = workload::start(self.config, self.simulated)?;
        self.logs.system(format!(
            "workload started pid={} at_us={}",
            running.pid,
            (self.elapsed_us)()
        ));
        let mut outputs = Vec::new();
        for (descriptor, source) in [
            (running.stdout, link::logs::Source::Stdout),
            (running.stderr, link::logs::Source::Stderr),
        ] {
            if let Some(receiver) = descriptor.and_then(|fd| pipe::Receiver::from_owned_fd(fd).ok())
            {
                outputs.push(tokio::spawn(self.logs.clone().carry(
                    receiver,
                    source,
                    self.release,
                )));
            }
        }
        Ok((running.pid, outputs))
    }

    /// Reaps and probes until the workload ends or a shutdown is asked for.
    async fn watch(&self, pid: Pid, events: &mut Events) -> Watched {
        let mut next_probe = tokio::time::Instant::now();
        if self.config.workload.health.is_none() {
            self.set_healthy();
        }
        loop {
            if let Some((_, status)) = workload::reap()
                .into_iter()
                .find(|(ended, _)| *ended == pid)
            {
                return Watched::Exited(status);
            }
            let probing = async {
                match &self.config.workload.health {
                    None => std::future::pending().await,
                    Some(health) => {
                        sleep_until(next_probe).await;
                        health::probe(&health.probe).await
                    }
                }
            };
            tokio::select! {
                _ = events.child.recv() => {}
                result = probing => next_probe = tokio::time::Instant::now() + self.probed(result),
                Some(shutdown) = events.shutdown.recv() => return Watched::Shutdown(shutdown),
                _ = events.terminate.recv() => return Watched::Shutdown(Shutdown { grace: None }),
                _ = events.interrupt.recv() => return Watched::Shutdown(Shutdown { grace: None }),
            }
        }
    }

    /// Records a probe's result and gives the time to the next one.
    fn probed(&self, result: Result<(), String>) -> Duration {
        let interval = self
            .config
            .workload
            .health
            .as_ref()
            .map_or(Duration::MAX, |health| health.interval.as_duration());
        match (result, self.handle.health()) {
            (Ok(()), HealthState::Healthy) => interval,
            (Ok(()), _) => {
                self.set_healthy();
                interval
            }
            (Err(_), HealthState::Starting) => STARTING_PROBE_INTERVAL,
            (Err(reason), _) => {
                self.logs.health(format!("unhealthy: {reason}"));
                self.handle.set_health(HealthState::Unhealthy, reason);
                interval
            }
        }
    }

    fn set_healthy(&self) {
        self.logs.health("healthy");
        self.handle.set_health(HealthState::Healthy, "");
        self.handle.set_ready((self.elapsed_us)());
    }

    /// SIGTERM, the grace, SIGKILL to everything.
    async fn stop(&self, pid: Pid, shutdown: Shutdown, events: &mut Events) {
        let grace = shutdown
            .grace
            .unwrap_or(self.config.workload.stop_grace.as_duration());
        workload::signal(pid, Signal::SIGTERM);
        let ended = async {
            while !workload::reap().into_iter().any(|(ended, _)| ended == pid) {
                events.child.recv().await;
            }
        };
        if timeout(grace, ended).await.is_err() {
            self.logs.error(format!(
                "the workload did not stop within {grace:?} of SIGTERM and was killed"
            ));
        }
        workload::kill_all();
    }
}

enum Watched {
    Exited(ExitStatus),
    Shutdown(Shutdown),
}

/// Waits for the rest of a dead workload's output. A process that it left
/// behind may hold the pipes open: that one goes on being read.
async fn finish(outputs: Vec<tokio::task::JoinHandle<()>>) {
    const PATIENCE: Duration = Duration::from_secs(1);
    let all = async {
        for output in outputs {
            // A reader does not panic; if it did, its records are what they are.
            let _ = output.await;
        }
    };
    let _ = timeout(PATIENCE, all).await;
}

/// Ends the machine, as AWS's init does: the hypervisor takes a reset for the end.
fn power_off() -> ExitCode {
    nix::unistd::sync();
    let error = nix::sys::reboot::reboot(nix::sys::reboot::RebootMode::RB_AUTOBOOT);
    say(&format!("the machine does not power off: {error:?}"));
    ExitCode::FAILURE
}

/// Writes to the console.
#[expect(
    clippy::print_stderr,
    reason = "the console is all there is when the parent is not"
)]
fn say(text: &str) {
    eprintln!("enclave-init: {text}");
}
