//! The workload's life: started, probed, restarted by its policy, stopped.
//!
//! A workload is its first process. When that ends, what it left behind is
//! killed, as in any container: nothing holds ports or pipes that the next
//! start needs, and a program that puts itself into the background has ended.

use std::sync::Arc;
use std::time::{Duration, Instant};

use link::EndCode;
use link::control::{EndCause, ExitStatus, FromInit, HealthState};
use manifest::{MeasuredConfig, OnChange, WorkloadKind};
use nix::libc;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::confinement::{Cgroup, Confinement, Events};
use crate::control::{Handle, Shutdown};
use crate::error::{Doing, InitError};
use crate::health;
use crate::logs::Logs;
use crate::reaper::{Ended, Reaper};
use crate::signals::{Asked, Signals};
use crate::workload::{self, Given, Pipes, Restarts, StandingBy, describe};

/// How often a workload that is not ready yet is probed.
const STARTING_PROBE_INTERVAL: Duration = Duration::from_millis(50);

/// Why the workload's supervision ended.
pub(crate) struct End {
    pub(crate) cause: EndCause,
    pub(crate) detail: String,
    /// The same for programs; none if it was orderly.
    pub(crate) code: Option<EndCode>,
    pub(crate) outputs: Outputs,
}

/// What comes from outside: signals, and the agent's shutdown.
pub(crate) struct Requests {
    signals: Signals,
    shutdown: mpsc::Receiver<Shutdown>,
    /// What follows changes of secrets.
    changes: mpsc::Receiver<OnChange>,
}

enum Request {
    Shutdown(Shutdown),
    Forward(Signal),
    Follow(OnChange),
}

impl Requests {
    pub(crate) fn new(
        signals: Signals,
        shutdown: mpsc::Receiver<Shutdown>,
        changes: mpsc::Receiver<OnChange>,
    ) -> Self {
        Self {
            signals,
            shutdown,
            changes,
        }
    }

    /// The next one. Cancellation safe.
    async fn next(&mut self) -> Request {
        tokio::select! {
            Some(shutdown) = self.shutdown.recv() => Request::Shutdown(shutdown),
            Some(change) = self.changes.recv() => Request::Follow(change),
            asked = self.signals.next() => match asked {
                Asked::Shutdown => Request::Shutdown(Shutdown { grace: None }),
                Asked::Forward(signal) => Request::Forward(signal),
            },
        }
    }

    /// Waits for a shutdown. Cancellation safe.
    pub(crate) async fn shutdown(&mut self) -> Shutdown {
        loop {
            if let Request::Shutdown(shutdown) = self.next().await {
                return shutdown;
            }
        }
    }
}

/// The tasks that read a workload's output. Dropping them closes the pipes.
#[derive(Debug, Default)]
pub(crate) struct Outputs(JoinSet<()>);

impl Outputs {
    /// Waits until all that was written has been taken over, in a queue that may
    /// have to wait for the parent. Every writer must have ended.
    /// Cancellation safe.
    pub(crate) async fn finished(&mut self) {
        while self.0.join_next().await.is_some() {}
    }
}

/// A workload whose output nobody reads yet.
struct Running {
    pid: Pid,
    ended: Ended,
    pipes: Pipes,
    /// Microseconds from the init's start to the workload's.
    at_us: u64,
}

struct Started {
    pid: Pid,
    ended: Ended,
    outputs: Outputs,
}

/// Runs the workload.
pub(crate) struct Supervisor<'a> {
    pub(crate) config: &'a MeasuredConfig,
    pub(crate) confinement: &'a Arc<Confinement>,
    pub(crate) logs: &'a Logs,
    pub(crate) handle: &'a Handle,
    pub(crate) given: Given<'a>,
    pub(crate) elapsed_us: &'a dyn Fn() -> u64,
}

impl End {
    /// As somebody asked.
    pub(crate) fn shutdown(outputs: Outputs) -> Self {
        Self {
            cause: EndCause::Shutdown,
            detail: "shut down as asked".to_owned(),
            code: None,
            outputs,
        }
    }
}

impl Supervisor<'_> {
    /// Runs the workload, again and again as its policy says. Calls `booted` when it
    /// has been started for the first time, or cannot be.
    pub(crate) async fn run(
        &self,
        first: StandingBy,
        mut requests: Requests,
        booted: impl FnOnce(),
    ) -> End {
        let failed = |cause, code, detail| End {
            cause,
            detail,
            code: Some(code),
            outputs: Outputs::default(),
        };
        let reaper = match Reaper::start() {
            Ok(reaper) => reaper,
            Err(error) => {
                let detail = format!("the ends of processes cannot be received: {error}");
                return failed(EndCause::InitFailed, EndCode::InitReaper, detail);
            }
        };
        let workload = &self.config.workload;
        let mut restarts = Restarts::new(workload.kind, workload.restart);
        let mut first = Some(first);
        let mut booted = Some(booted);
        let mut events = Events::default();
        loop {
            let begun = Instant::now();
            let before = self.events(events);
            let running = self.start(&reaper, first.take());
            let is_first = booted.is_some();
            if let Some(booted) = booted.take() {
                booted();
            }
            let mut started = match running.and_then(|running| self.follow(running)) {
                Ok(started) => started,
                Err(error) if is_first => {
                    let detail = format!("boot step workload failed: {error}");
                    return failed(EndCause::BootFailed, EndCode::BootWorkload, detail);
                }
                Err(error) => {
                    let code = EndCode::WorkloadStart;
                    return failed(EndCause::InitFailed, code, error.to_string());
                }
            };
            let status = match self.watch(&mut started, &mut requests).await {
                Watched::Exited(status) => status,
                Watched::Shutdown(shutdown) => {
                    self.stop(&mut started, shutdown).await;
                    return End::shutdown(started.outputs);
                }
            };
            workload::kill_all();
            events = self.events(before);
            if events != before {
                // Whoever watches the counts may not have been run yet.
                self.handle.set_limits(events.into());
            }
            let code = code(status, events.oom_kills > before.oom_kills);
            let how = how(status, code);
            let delay = restarts.next(status, begun.elapsed());
            self.handle.set_health(HealthState::Starting, how.clone());
            self.handle.tell(FromInit::WorkloadExited {
                status,
                restart_in_ms: delay
                    .map(|delay| u64::try_from(delay.as_millis()).unwrap_or(u64::MAX)),
                code: EndCode::text(code),
            });
            let Some(delay) = delay else {
                return End {
                    cause: EndCause::WorkloadExited(status),
                    detail: format!("{} ended with {how}", self.subject()),
                    code,
                    outputs: started.outputs,
                };
            };
            self.logs.error(format!(
                "{} ended with {how}; restart in {delay:?}",
                self.subject()
            ));
            // The output of one run comes before that of the next.
            let pause = async {
                sleep(delay).await;
                started.outputs.finished().await;
            };
            tokio::select! {
                () = pause => {}
                _ = requests.shutdown() => {
                    return End {
                        cause: EndCause::Shutdown,
                        detail: "shut down as asked, between restarts".to_owned(),
                        code: None,
                        outputs: started.outputs,
                    };
                }
            }
        }
    }

    /// How often the workload met its limits: what is known, where that cannot be
    /// counted now, and never under `sim`. Whoever watches the counts says why.
    fn events(&self, known: Events) -> Events {
        let events = self.confinement.cgroup().map(Cgroup::events);
        events.and_then(Result::ok).unwrap_or(known)
    }

    fn subject(&self) -> &'static str {
        match self.config.workload.kind {
            WorkloadKind::Batch => "the batch",
            WorkloadKind::Service | WorkloadKind::Daemon => "the workload",
        }
    }

    fn start(&self, reaper: &Reaper, first: Option<StandingBy>) -> Result<Running, InitError> {
        let (pid, ended, pipes) = reaper.spawn(|| match first {
            Some(workload) => workload.go(self.given),
            None => workload::start_now(self.config, self.confinement, self.given),
        })?;
        Ok(Running {
            pid,
            ended,
            pipes,
            at_us: (self.elapsed_us)(),
        })
    }

    /// Takes over what the workload writes, from the beginning.
    fn follow(&self, running: Running) -> Result<Started, InitError> {
        let Running {
            pid,
            ended,
            pipes,
            at_us,
        } = running;
        self.logs
            .system(format!("workload started pid={pid} at_us={at_us}"));
        let mut outputs = Outputs::default();
        for (pipe, source) in pipes {
            let receiver = pipe::Receiver::from_owned_fd(pipe)
                .doing(|| "reading the workload's output".to_owned())?;
            let carrying = self.logs.clone().carry(receiver, source);
            outputs.0.spawn(carrying);
        }
        Ok(Started {
            pid,
            ended,
            outputs,
        })
    }

    /// Probes until the workload ends or a shutdown is asked for.
    async fn watch(&self, started: &mut Started, requests: &mut Requests) -> Watched {
        let probing = self.probe();
        tokio::pin!(probing);
        loop {
            tokio::select! {
                status = started.ended.wait() => return Watched::Exited(status),
                request = requests.next() => match request {
                    Request::Shutdown(shutdown) => return Watched::Shutdown(shutdown),
                    Request::Forward(signal) => workload::signal(started.pid, signal),
                    Request::Follow(OnChange { signal }) => {
                        workload::signal_main(started.pid, signal);
                    }
                },
                () = &mut probing => {}
            }
        }
    }

    /// Probes the workload for as long as it is asked to.
    async fn probe(&self) {
        let Some(health) = &self.config.workload.health else {
            self.set_healthy();
            return std::future::pending().await;
        };
        loop {
            let result = health::probe(&health.probe, self.confinement.network()).await;
            let pause = match (result, self.handle.health()) {
                (Ok(()), HealthState::Healthy) => health.interval.as_duration(),
                (Ok(()), _) => {
                    self.set_healthy();
                    health.interval.as_duration()
                }
                (Err(reason), HealthState::Starting) => {
                    self.handle.set_health(HealthState::Starting, reason);
                    STARTING_PROBE_INTERVAL
                }
                (Err(reason), _) => {
                    self.logs.health(format!("unhealthy: {reason}"));
                    self.handle.set_health(HealthState::Unhealthy, reason);
                    health.interval.as_duration()
                }
            };
            sleep(pause).await;
        }
    }

    fn set_healthy(&self) {
        self.logs.health("healthy");
        self.handle.set_health(HealthState::Healthy, "");
        self.handle.set_ready((self.elapsed_us)());
    }

    /// The stop signal, the grace, SIGKILL to everything.
    async fn stop(&self, started: &mut Started, shutdown: Shutdown) {
        let workload = &self.config.workload;
        let grace = shutdown.grace.unwrap_or(workload.stop_grace.as_duration());
        workload::ask_to_stop(started.pid, workload.stop_signal);
        if timeout(grace, started.ended.wait()).await.is_err() {
            self.logs.error(format!(
                "the workload did not stop within {grace:?} of {} and was killed",
                workload.stop_signal
            ));
        }
        workload::kill_all();
    }
}

/// How a workload ended, for people.
fn how(status: ExitStatus, code: Option<EndCode>) -> String {
    let how = describe(status);
    if code == Some(EndCode::WorkloadOutOfMemory) {
        return format!("{how}: its memory had run out");
    }
    how
}

/// What a workload's end is called; none if it was a good one. `oom` says whether
/// the kernel killed one of its processes for want of memory meanwhile.
fn code(status: ExitStatus, oom: bool) -> Option<EndCode> {
    match status {
        ExitStatus::Code(0) => None,
        ExitStatus::Signal(libc::SIGKILL) if oom => Some(EndCode::WorkloadOutOfMemory),
        ExitStatus::Code(_) => Some(EndCode::WorkloadExitCode),
        ExitStatus::Signal(_) => Some(EndCode::WorkloadSignal),
    }
}

enum Watched {
    Exited(ExitStatus),
    Shutdown(Shutdown),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_workloads_tell_memory_from_other_signals() {
        use EndCode::{WorkloadExitCode, WorkloadOutOfMemory, WorkloadSignal};
        for (status, is_out_of_memory, expected) in [
            (ExitStatus::Code(0), false, None),
            // A child was killed; the workload itself ended as it liked.
            (ExitStatus::Code(0), true, None),
            (ExitStatus::Code(1), true, Some(WorkloadExitCode)),
            (ExitStatus::Signal(15), true, Some(WorkloadSignal)),
            (ExitStatus::Signal(9), false, Some(WorkloadSignal)),
            (ExitStatus::Signal(9), true, Some(WorkloadOutOfMemory)),
        ] {
            assert_eq!(code(status, is_out_of_memory), expected, "{status:?}");
        }
        let killed = ExitStatus::Signal(9);
        let words = how(killed, code(killed, true));
        assert_eq!(words, "signal SIGKILL: its memory had run out");
    }
}
