//! The workload's life: started, probed, restarted by its policy, stopped.
//!
//! A workload is its first process. When that ends, what it left behind is
//! killed, as in any container: nothing holds ports or pipes that the next
//! start needs, and a program that puts itself into the background has ended.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use link::EndCode;
use link::control::{EndCause, ExitStatus, FromInit, HealthState};
use link::places::Places;
use manifest::{Command, MeasuredConfig, OnChange, OnUnhealthy, WorkloadKind};
use nix::libc::{self, c_int};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::companion::Companions;
use crate::confinement::{Cgroup, Confinement, Events, Side};
use crate::control::{Handle, Shutdown};
use crate::disposition;
use crate::error::{Doing, InitError};
use crate::logs::Logs;
use crate::notifications::Notifications;
use crate::probing::{Concern, Prober};
use crate::reaper::{Ended, Reaper};
use crate::signals::{Asked, Signals};
use crate::workload::{self, Given, Pipes, Restarts, StandingBy, describe};

/// How long a workload that was killed may take to be gone.
const KILL_TIMEOUT: Duration = Duration::from_secs(1);

/// How often it is looked whether a connection into the enclave is still open.
const IDLE_INTERVAL: Duration = Duration::from_millis(20);

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
    process: OwnedFd,
    pipes: Pipes,
    /// Microseconds from the init's start to the workload's.
    at_us: u64,
}

struct Started {
    pid: Pid,
    ended: Ended,
    /// Its main process.
    process: Arc<OwnedFd>,
    /// The signal that it was killed in the place of.
    killed_for: Option<c_int>,
    outputs: Outputs,
}

impl Started {
    /// Waits for its end; cancellation safe.
    async fn ended(&mut self) -> ExitStatus {
        match (self.ended.wait().await, self.killed_for) {
            (ExitStatus::Signal(libc::SIGKILL), Some(signal)) => ExitStatus::Signal(signal),
            (status, _) => status,
        }
    }
}

/// Runs the workload.
pub(crate) struct Supervisor<'a> {
    pub(crate) config: &'a MeasuredConfig,
    pub(crate) confinement: &'a Arc<Confinement>,
    pub(crate) logs: &'a Logs,
    pub(crate) handle: &'a Handle,
    pub(crate) given: Given<'a>,
    /// The connections into the enclave.
    pub(crate) ingress: &'a Places<()>,
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
        let said = match Notifications::of(self.handle.readiness()) {
            Ok(notifications) => notifications,
            Err(error) => {
                return failed(EndCause::BootFailed, EndCode::BootWorkload, in_boot(&error));
            }
        };
        let workload = &self.config.workload;
        let mut restarts = Restarts::new(workload.kind, workload.restart);
        let mut first = Some(first);
        let mut booted = Some(booted);
        let mut events = Events::default();
        let companions = Companions::new(self.config, self.given, self.confinement, &reaper);
        let mut was_ready = false;
        loop {
            let begun = Instant::now();
            let before = self.events(events);
            let running = self.start(&reaper, said.as_ref(), first.take());
            let is_first = booted.is_some();
            if let Some(booted) = booted.take() {
                booted();
            }
            let mut started = match running.and_then(|running| self.follow(running)) {
                Ok(started) => started,
                Err(error) if is_first => {
                    let detail = in_boot(&error);
                    return failed(EndCause::BootFailed, EndCode::BootWorkload, detail);
                }
                Err(error) => {
                    let code = EndCode::WorkloadStart;
                    return failed(EndCause::InitFailed, code, error.to_string());
                }
            };
            let watching = self.watch(&companions, said.as_ref(), &mut started, &mut requests);
            let watched = watching.await;
            was_ready |= self.handle.is_ready();
            let concluded = self.conclude(watched, &mut started, &mut requests).await;
            let Some((status, concern)) = concluded else {
                return End::shutdown(started.outputs);
            };
            workload::kill_all();
            events = self.events(before);
            if events != before {
                // Whoever watches the counts may not have been run yet.
                self.handle.set_limits(events.into());
            }
            let code = match &concern {
                Some(concern) => Some(concern.code()),
                None => code(status, events.oom_kills > before.oom_kills),
            };
            let how = match &concern {
                Some(concern) => concern.reason().to_owned(),
                None => format!("{} ended with {}", self.subject(), how(status, code)),
            };
            let delay = match &concern {
                Some(concern) if !self.may_restart(concern) => None,
                _ => restarts.next(code.is_some(), begun.elapsed()),
            };
            self.handle.readiness().ended(&how);
            self.handle.set_health(HealthState::Starting, how.clone());
            self.handle.tell(FromInit::WorkloadExited {
                status,
                restart_in_ms: delay
                    .map(|delay| u64::try_from(delay.as_millis()).unwrap_or(u64::MAX)),
                code: EndCode::text(code),
            });
            let Some(delay) = delay else {
                let cause = match concern {
                    Some(Concern::NotReady(_)) if !was_ready => EndCause::BootFailed,
                    _ => EndCause::WorkloadExited(status),
                };
                return End {
                    cause,
                    detail: how,
                    code,
                    outputs: started.outputs,
                };
            };
            self.logs.error(format!("{how}; restart in {delay:?}"));
            if !pause(delay, &mut started.outputs, &mut requests).await {
                return End {
                    detail: "shut down as asked, between restarts".to_owned(),
                    ..End::shutdown(started.outputs)
                };
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

    fn start(
        &self,
        reaper: &Reaper,
        notifications: Option<&Notifications>,
        first: Option<StandingBy>,
    ) -> Result<Running, InitError> {
        self.handle.readiness().begin();
        if let Some(notifications) = notifications {
            notifications.forget();
        }
        let (pid, ended, (process, pipes)) = reaper.spawn(|| {
            let (pid, pipes) = match first {
                Some(workload) => workload.go(self.given),
                None => workload::start_now(self.config, self.confinement, self.given),
            }?;
            // It has not been waited for, so the number is its own.
            workload::descriptor(pid).map(|process| (pid, (process, pipes)))
        })?;
        Ok(Running {
            pid,
            ended,
            process,
            pipes,
            at_us: (self.elapsed_us)(),
        })
    }

    /// Takes over what the workload writes, from the beginning.
    fn follow(&self, running: Running) -> Result<Started, InitError> {
        let Running {
            pid,
            ended,
            process,
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
            process: Arc::new(process),
            killed_for: None,
            outputs,
        })
    }

    /// Has the workload end, if it has not: says how it has, and why it was stopped, if it
    /// was for its health. None if the enclave is to end.
    async fn conclude(
        &self,
        watched: Watched,
        started: &mut Started,
        requests: &mut Requests,
    ) -> Option<(ExitStatus, Option<Concern>)> {
        let shutdown = match watched {
            Watched::Exited(status) => return Some((status, None)),
            Watched::Shutdown(shutdown) => shutdown,
            Watched::Concern(concern) => {
                self.logs
                    .error(format!("{}; it is stopped", concern.reason()));
                let stopped = async {
                    self.stop(started, None).await;
                    // However long it takes to free its memory: the next run would be beside
                    // it, and short of that.
                    started.ended().await
                };
                tokio::select! {
                    status = stopped => return Some((status, Some(concern))),
                    shutdown = requests.shutdown() => shutdown,
                }
            }
        };
        self.stop(started, shutdown.grace).await;
        // The machine ends with it.
        let _ = timeout(KILL_TIMEOUT, started.ended()).await;
        None
    }

    /// Whether the workload may be started again after this.
    fn may_restart(&self, concern: &Concern) -> bool {
        let health = self.config.workload.health.as_ref();
        let on_unhealthy = health.map(|health| health.on_unhealthy);
        matches!(concern, Concern::Unhealthy(_)) && on_unhealthy == Some(OnUnhealthy::Restart)
    }

    /// Waits until the workload ends or has to be stopped, probes it, and hands on what is
    /// for it.
    async fn watch(
        &self,
        companions: &Companions<'_>,
        notifications: Option<&Notifications>,
        started: &mut Started,
        requests: &mut Requests,
    ) -> Watched {
        let process = Arc::clone(&started.process);
        let prober = Prober {
            health: self.config.workload.health.as_ref(),
            handle: self.handle,
            logs: self.logs,
            companions,
            network: self.confinement.network(),
            notifications,
            workload: process.as_fd(),
            stop_grace: self.config.workload.stop_grace,
            elapsed_us: self.elapsed_us,
        };
        let probing = prober.watch();
        tokio::pin!(probing);
        // Commands that follow changes run one after the other. One that has not begun yet
        // follows what has changed meanwhile, too.
        let mut change = JoinSet::new();
        let mut waiting: VecDeque<Command> = VecDeque::new();
        loop {
            if change.is_empty()
                && let Some(command) = waiting.pop_front()
            {
                match companions.start(Side::Change, process.as_fd(), &command) {
                    Ok(running) => {
                        let logs = self.logs.clone();
                        change.spawn(running.follow_change(command, logs));
                    }
                    Err(error) => self.logs.error(format!(
                        "secrets: `{command}`, which follows a change, failed: {error}"
                    )),
                }
            }
            tokio::select! {
                biased;
                // What has ended is not unhealthy.
                status = started.ended() => return Watched::Exited(status),
                request = requests.next() => match request {
                    Request::Shutdown(shutdown) => return Watched::Shutdown(shutdown),
                    Request::Forward(signal) => self.deliver(started, signal as c_int).await,
                    Request::Follow(OnChange::Signal(signal)) => {
                        let signal = workload::of_change(signal) as c_int;
                        self.deliver(started, signal).await;
                    }
                    Request::Follow(OnChange::Command(command)) => {
                        if !waiting.contains(&command) {
                            waiting.push_back(command);
                        }
                    }
                },
                concern = &mut probing => return Watched::Concern(concern),
                Some(_) = change.join_next() => {}
            }
        }
    }

    /// Waits until there is no connection into the enclave.
    async fn until_idle(&self) {
        while self.ingress.taken() > 0 {
            sleep(IDLE_INTERVAL).await;
        }
    }

    /// Has a signal do to the workload's main process what it does to any other program. Only
    /// to that, as in other container runtimes: a server's children may be answering still.
    async fn deliver(&self, started: &mut Started, signal: c_int) {
        let pid = started.pid;
        if !self.config.workload.init && disposition::would_end(self.confinement, pid, signal).await
        {
            started.killed_for = Some(signal);
            workload::signal_main(started.process.as_fd(), libc::SIGKILL);
        } else {
            workload::signal_main(started.process.as_fd(), signal);
        }
    }

    /// The stop signal, the grace, SIGKILL to everything.
    async fn stop(&self, started: &mut Started, grace: Option<Duration>) {
        let workload = &self.config.workload;
        let grace = grace.unwrap_or(workload.stop_grace.as_duration());
        let asked = workload.stop_signal;
        let end = Instant::now() + grace;
        if disposition::would_end(self.confinement, started.pid, asked.number()).await {
            // It takes no notice of the signal, so in a container it would go on for the whole
            // grace. What it is answering is answered; beyond that nobody needs it any more.
            let _ = timeout(grace, async {
                tokio::select! {
                    _ = started.ended() => {}
                    () = self.until_idle() => {}
                }
            })
            .await;
        }
        self.deliver(started, asked.number()).await;
        let left = end.saturating_duration_since(Instant::now());
        if timeout(left, started.ended()).await.is_err() {
            self.logs.error(format!(
                "the workload did not stop within {grace:?} of {asked} and was killed"
            ));
        }
        workload::kill_all();
    }
}

/// Waits between two runs: the output of one comes before that of the next. False if the
/// enclave is to end.
async fn pause(delay: Duration, outputs: &mut Outputs, requests: &mut Requests) -> bool {
    let pause = async {
        sleep(delay).await;
        outputs.finished().await;
    };
    tokio::select! {
        () = pause => true,
        _ = requests.shutdown() => false,
    }
}

/// What kept the workload from its first start, for people.
fn in_boot(error: &InitError) -> String {
    format!("boot step workload failed: {error}")
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
    Concern(Concern),
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
