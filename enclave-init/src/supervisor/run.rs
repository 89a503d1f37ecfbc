//! One run of a workload: its process, from the start to the end.

use std::collections::VecDeque;
use std::future::{Future, pending};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use link::control::ExitStatus;
use manifest::Command;
use nix::libc::{self, c_int};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::net::unix::pipe;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::end::Outputs;
use super::life::Life;
use super::orders::{Order, Orders, Stop, Wanted};
use crate::confinement::Side;
use crate::disposition;
use crate::error::{Doing, InitError};
use crate::probing::{Concern, Prober};
use crate::reaper::Ended;
use crate::workload::{self, Pipes, StandingBy};

/// How long a workload that was killed may take to be gone.
const KILL_TIMEOUT: Duration = Duration::from_secs(1);

/// How often it is looked whether a connection into the enclave is still open.
const IDLE_INTERVAL: Duration = Duration::from_millis(20);

/// A workload whose output nobody reads yet.
pub(super) struct Running {
    pid: Pid,
    ended: Ended,
    process: OwnedFd,
    namespace: Option<OwnedFd>,
    pipes: Pipes,
    /// Microseconds from the init's start to the workload's.
    at_us: u64,
}

pub(super) struct Started {
    pid: Pid,
    ended: Ended,
    /// Its main process.
    process: Arc<OwnedFd>,
    /// PID 1 of its namespace, if that is another process.
    namespace: Option<OwnedFd>,
    /// The signal that it was killed in the place of.
    killed_for: Option<c_int>,
    pub(super) outputs: Outputs,
}

impl Started {
    /// Waits for its end; cancellation safe.
    async fn ended(&mut self) -> ExitStatus {
        match (self.ended.wait().await, self.killed_for) {
            (ExitStatus::Signal(libc::SIGKILL), Some(signal)) => ExitStatus::Signal(signal),
            (status, _) => status,
        }
    }

    /// Kills all of its processes: those of a PID namespace end with its PID 1.
    pub(super) fn kill(&self) {
        kill_by(std::iter::once(&*self.process).chain(&self.namespace));
    }
}

fn kill_by<'a>(processes: impl Iterator<Item = &'a OwnedFd>) {
    for process in processes {
        workload::signal_main(process.as_fd(), libc::SIGKILL);
    }
}

/// Why a workload is not watched any longer.
pub(super) enum Watched {
    Exited(ExitStatus),
    Stop(Stop),
    Concern(Concern),
}

impl Life<'_> {
    pub(super) fn start(&self, first: Option<StandingBy>) -> Result<Running, InitError> {
        self.readiness.begin();
        if let Some(notifications) = &self.said {
            notifications.forget();
        }
        let all = self.all;
        let (pid, ended, (process, started)) = self.reaper.spawn(|| {
            let started = match first {
                Some(workload) => workload.go(all.given),
                None => workload::start_now(all.config, self.workload, self.confinement, all.given),
            }?;
            // It has not been waited for, so the number is its own.
            let pid = started.pid;
            match workload::descriptor(pid) {
                Ok(process) => Ok((pid, (process, started))),
                Err(error) => {
                    let _ = kill(pid, Signal::SIGKILL);
                    kill_by(started.namespace.iter());
                    Err(error)
                }
            }
        })?;
        Ok(Running {
            pid,
            ended,
            process,
            namespace: started.namespace,
            pipes: started.pipes,
            at_us: (all.elapsed_us)(),
        })
    }

    /// Takes over what the workload writes, from the beginning.
    pub(super) fn follow(&self, running: Running) -> Result<Started, InitError> {
        let Running {
            pid,
            ended,
            process,
            namespace,
            pipes,
            at_us,
        } = running;
        self.logs
            .system(format!("workload started pid={pid} at_us={at_us}"));
        let mut outputs = JoinSet::new();
        for (pipe, source) in pipes {
            let receiver = pipe::Receiver::from_owned_fd(pipe)
                .doing(|| "reading the workload's output".to_owned())
                .inspect_err(|_| kill_by([&process].into_iter().chain(&namespace)))?;
            outputs.spawn(self.logs.clone().carry(receiver, source));
        }
        Ok(Started {
            pid,
            ended,
            process: Arc::new(process),
            namespace,
            killed_for: None,
            outputs: Outputs::of(outputs),
        })
    }

    /// Has the workload end, if it has not: says how it has, and why it was stopped, if it
    /// was for its health. None if it was to stop.
    pub(super) async fn conclude(
        &self,
        watched: Watched,
        started: &mut Started,
        orders: &mut Orders<'_>,
    ) -> Option<(ExitStatus, Option<Concern>)> {
        let stop = match watched {
            Watched::Exited(status) => return Some((status, None)),
            Watched::Stop(stop) => stop,
            Watched::Concern(concern) => {
                self.logs
                    .error(format!("{}; it is stopped", concern.reason()));
                let stopped = async {
                    self.stop(started, self.own_grace(), pending()).await;
                    // However long it takes to free its memory: the next run would be beside
                    // it, and short of that.
                    started.ended().await
                };
                tokio::select! {
                    status = stopped => return Some((status, Some(concern))),
                    stop = orders.stop() => stop,
                }
            }
        };
        let grace = self.grace(stop, orders.has_dependents());
        let hurried = async {
            loop {
                let other = orders.another().await;
                // The time of others counts from that request on, like its own.
                let hurried = self.grace(other, false);
                if hurried < grace {
                    return hurried;
                }
            }
        };
        self.stop(started, grace, hurried).await;
        // The machine ends with it.
        let _ = timeout(KILL_TIMEOUT, started.ended()).await;
        None
    }

    /// Waits until the workload ends or has to be stopped, probes it, and hands on what is
    /// for it.
    pub(super) async fn watch(&self, started: &mut Started, orders: &mut Orders<'_>) -> Watched {
        let process = Arc::clone(&started.process);
        let prober = Prober {
            workload: self.workload,
            condition: self.condition,
            logs: &self.logs,
            companions: &self.companions,
            network: self.confinement.network(),
            notifications: self.said.as_ref(),
            process: process.as_fd(),
            elapsed_us: self.all.elapsed_us,
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
                match self
                    .companions
                    .start(Side::Change, process.as_fd(), &command)
                {
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
                wanted = orders.next() => match wanted {
                    Wanted::Stop(stop) => return Watched::Stop(stop),
                    Wanted::Order(Order::Signal(signal)) => self.deliver(started, signal).await,
                    Wanted::Order(Order::Command(command)) => {
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
        while self.all.ingress.taken() > 0 {
            sleep(IDLE_INTERVAL).await;
        }
    }

    /// Has a signal do to the workload's main process what it does to any other program. Only
    /// to that, as in other container runtimes: a server's children may be answering still.
    async fn deliver(&self, started: &mut Started, signal: c_int) {
        let pid = started.pid;
        if !self.workload.init && disposition::would_end(self.confinement, pid, signal).await {
            started.killed_for = Some(signal);
            workload::signal_main(started.process.as_fd(), libc::SIGKILL);
        } else {
            workload::signal_main(started.process.as_fd(), signal);
        }
    }

    fn own_grace(&self) -> Duration {
        self.workload.stop_grace.as_duration()
    }

    /// How long it may take to stop.
    fn grace(&self, stop: Stop, has_waited: bool) -> Duration {
        let own = self.own_grace();
        let below = self.all.stop_below(self.index, self.condition.all());
        stop.share(has_waited, own, below).unwrap_or(own)
    }

    /// The stop signal, the grace, SIGKILL to everything. The grace becomes a shorter one if
    /// somebody is in a hurry.
    async fn stop(
        &self,
        started: &mut Started,
        grace: Duration,
        hurried: impl Future<Output = Duration>,
    ) {
        let asked = self.workload.stop_signal;
        let end = Instant::now() + grace;
        tokio::pin!(hurried);
        let within = async {
            if disposition::would_end(self.confinement, started.pid, asked.number()).await {
                // It takes no notice of the signal, so in a container it would go on for the
                // whole grace. What it is answering is answered; beyond that nobody needs it
                // any more.
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
            timeout(left, started.ended()).await.is_ok()
        };
        let stopped = tokio::select! {
            biased;
            has_stopped = within => has_stopped.then_some(()).ok_or(grace),
            shorter = async {
                let shorter = hurried.await;
                sleep(shorter).await;
                shorter
            } => Err(shorter),
        };
        if let Err(grace) = stopped {
            self.logs.error(format!(
                "{} did not stop within {grace:?} of {asked} and was killed",
                self.workload.subject()
            ));
        }
        started.kill();
    }
}
