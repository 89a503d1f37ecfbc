//! One workload's life: started when those before it are ready, probed, restarted by its
//! policy, and stopped when those after it have ended.
//!
//! A workload is its first process. When that ends, what it left behind is
//! killed, as in any container: nothing holds ports or pipes that the next
//! start needs, and a program that puts itself into the background has ended.

use std::sync::Arc;
use std::time::{Duration, Instant};

use link::control::{EndCause, ExitStatus, FromInit, HealthState};
use link::{EndCode, Text};
use manifest::{Command, OnUnhealthy, Workload, WorkloadKind, WorkloadName};
use nix::libc::c_int;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use super::Supervisor;
use super::end::{End, Outputs, code, how, in_boot};
use crate::companion::Companions;
use crate::conditions::Condition;
use crate::confinement::{Cgroup, Confinement, Events};
use crate::control::Shutdown;
use crate::logs::Logs;
use crate::notifications::Notifications;
use crate::probing::Concern;
use crate::readiness::Readiness;
use crate::reaper::Reaper;
use crate::restarts::{Restarts, spread};
use crate::workload::StandingBy;

/// What a running workload is told.
pub(super) enum Order {
    /// To be sent to its main process.
    Signal(c_int),
    /// To be run beside it.
    Command(Command),
}

/// What a workload is told, and when it is to stop.
pub(super) struct Orders<'a> {
    pub(super) given: mpsc::Receiver<Order>,
    pub(super) stop: watch::Receiver<Option<Shutdown>>,
    /// Those that are stopped before it.
    pub(super) dependents: Vec<Condition<'a>>,
}

pub(super) enum Wanted {
    Stop(Shutdown),
    Order(Order),
}

impl Orders<'_> {
    /// The next one. Cancellation safe.
    pub(super) async fn next(&mut self) -> Wanted {
        tokio::select! {
            shutdown = stopping(&mut self.stop, &self.dependents) => Wanted::Stop(shutdown),
            Some(order) = self.given.recv() => Wanted::Order(order),
        }
    }

    /// Waits until it is to stop. Cancellation safe.
    pub(super) async fn stop(&mut self) -> Shutdown {
        loop {
            if let Wanted::Stop(shutdown) = self.next().await {
                return shutdown;
            }
        }
    }

    /// Whether it will not be started again.
    fn is_ending(&self) -> bool {
        self.stop.borrow().is_some()
    }
}

async fn stopping(
    stop: &mut watch::Receiver<Option<Shutdown>>,
    dependents: &[Condition<'_>],
) -> Shutdown {
    let shutdown = match stop.wait_for(Option::is_some).await {
        Ok(shutdown) => *shutdown,
        // The supervisor has it while there are workloads.
        Err(_) => None,
    };
    for dependent in dependents {
        dependent.until_gone().await;
    }
    shutdown.unwrap_or(Shutdown { grace: None })
}

/// The end of a workload's life.
pub(super) struct Departure {
    pub(super) kind: DepartureKind,
    /// What it makes of the enclave if that ends with it.
    pub(super) end: End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DepartureKind {
    /// It was to stop.
    Stopped,
    /// A batch has succeeded.
    Succeeded,
    /// Anything else.
    Ended,
}

/// One workload, and what its life needs.
pub(super) struct Life<'a> {
    pub(super) all: &'a Supervisor<'a>,
    pub(super) workload: &'a Workload,
    pub(super) confinement: &'a Arc<Confinement>,
    /// Those whose records have its name.
    pub(super) logs: Logs,
    pub(super) condition: Condition<'a>,
    /// Those that have to be ready before it is started.
    pub(super) before: Vec<(&'a WorkloadName, Condition<'a>)>,
    pub(super) reaper: &'a Reaper,
    pub(super) readiness: &'a Readiness,
    pub(super) said: Option<Notifications>,
    pub(super) companions: Companions<'a>,
}

impl Life<'_> {
    /// Lives it. Calls `begun` when it has been started for the first time, or cannot be.
    pub(super) async fn live(
        &self,
        first: Option<StandingBy>,
        mut orders: Orders<'_>,
        begun: impl FnOnce(),
    ) -> Departure {
        let mut departure = match self.wait(&mut orders).await {
            Some(departure) => departure,
            None => self.run(first, &mut orders, begun).await,
        };
        let end = &mut departure.end;
        end.workload.clone_from(&self.workload.name);
        self.condition.set_gone(end.code.is_none(), &end.detail);
        departure
    }

    /// Waits for those before it. Gives the end of a workload that is not started.
    async fn wait(&self, orders: &mut Orders<'_>) -> Option<Departure> {
        for (name, before) in &self.before {
            self.condition.set_waiting(format!("it waits for {name}"));
            let is_ready = tokio::select! {
                is_ready = before.until_ready() => is_ready,
                _ = orders.stop() => return Some(stopped(Outputs::default())),
            };
            if !is_ready {
                // Where the enclave ends for that one, this is only stopped.
                if orders.is_ending() {
                    orders.stop().await;
                    return Some(stopped(Outputs::default()));
                }
                let cause = if self.all.handle.is_ready() {
                    EndCause::InitFailed
                } else {
                    EndCause::BootFailed
                };
                let detail = format!(
                    "{} cannot be started: {name}, after which it is started, has ended",
                    self.workload.subject()
                );
                return Some(Departure {
                    kind: DepartureKind::Ended,
                    end: End::failed(cause, EndCode::WorkloadStart, detail),
                });
            }
        }
        None
    }

    /// Runs the workload, again and again as its policy says.
    async fn run(
        &self,
        mut first: Option<StandingBy>,
        orders: &mut Orders<'_>,
        begun: impl FnOnce(),
    ) -> Departure {
        let workload = self.workload;
        let mut restarts = Restarts::new(workload.kind, workload.restart);
        let mut begun = Some(begun);
        let mut events = Events::default();
        let mut was_ready = false;
        loop {
            let start = Instant::now();
            let before = self.events(events);
            self.condition.set_begun();
            let running = self.start(first.take());
            let is_first = begun.is_some();
            if let Some(begun) = begun.take() {
                begun();
            }
            let mut started = match running.and_then(|running| self.follow(running)) {
                Ok(started) => started,
                Err(error) => return self.not_started(&error, is_first),
            };
            let watched = self.watch(&mut started, orders).await;
            was_ready |= self.all.handle.is_ready();
            let Some((status, concern)) = self.conclude(watched, &mut started, orders).await else {
                return stopped(started.outputs);
            };
            started.kill();
            events = self.events(before);
            if events != before {
                // Whoever watches the counts may not have been run yet.
                self.all.tell_limits();
            }
            let code = match &concern {
                Some(concern) => Some(concern.code()),
                None => code(status, events.oom_kills > before.oom_kills),
            };
            let how = match &concern {
                Some(concern) => concern.reason().to_owned(),
                None => format!("{} ended with {}", workload.subject(), how(status, code)),
            };
            let delay = match &concern {
                _ if orders.is_ending() => None,
                Some(concern) if !self.may_restart(concern) => None,
                _ => restarts.next(code.is_some(), start.elapsed()).map(spread),
            };
            self.readiness.ended(&how);
            self.condition
                .set_health(HealthState::Starting, how.clone());
            self.tell_exit(status, delay, code);
            let Some(delay) = delay else {
                let cause = match concern {
                    Some(Concern::NotReady(_)) if !was_ready => EndCause::BootFailed,
                    _ => EndCause::WorkloadExited(status),
                };
                let kind = if workload.kind == WorkloadKind::Batch && code.is_none() {
                    DepartureKind::Succeeded
                } else {
                    DepartureKind::Ended
                };
                let end = End {
                    cause,
                    detail: how,
                    code,
                    workload: None,
                    outputs: started.outputs,
                };
                return Departure { kind, end };
            };
            self.logs.error(format!("{how}; restart in {delay:?}"));
            if !pause(delay, &mut started.outputs, orders).await {
                let mut departure = stopped(started.outputs);
                "shut down as asked, between restarts".clone_into(&mut departure.end.detail);
                return departure;
            }
        }
    }

    fn not_started(&self, error: &crate::error::InitError, is_first: bool) -> Departure {
        let named = self.workload.name.as_ref();
        let of = named.map_or_else(String::new, |name| format!("{name}: "));
        let end = if is_first && !self.all.handle.is_ready() {
            let detail = in_boot(&format!("{of}{error}"));
            End::failed(EndCause::BootFailed, EndCode::BootWorkload, detail)
        } else {
            let (cause, code) = (EndCause::InitFailed, EndCode::WorkloadStart);
            End::failed(cause, code, format!("{of}{error}"))
        };
        let kind = DepartureKind::Ended;
        Departure { kind, end }
    }

    /// How often the workload met its limits: what is known, where that cannot be
    /// counted now, and never under `sim`. Whoever watches the counts says why.
    fn events(&self, known: Events) -> Events {
        let events = self.confinement.cgroup().map(Cgroup::events);
        events.and_then(Result::ok).unwrap_or(known)
    }

    fn tell_exit(&self, status: ExitStatus, delay: Option<Duration>, code: Option<EndCode>) {
        let milliseconds = |delay: Duration| u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        self.all.handle.tell(FromInit::WorkloadExited {
            status,
            restart_in_ms: delay.map(milliseconds),
            code: EndCode::text(code),
            workload: self.workload.name.as_deref().map(Text::new),
        });
    }

    /// Whether the workload may be started again after this.
    fn may_restart(&self, concern: &Concern) -> bool {
        let health = self.workload.health.as_ref();
        let on_unhealthy = health.map(|health| health.on_unhealthy);
        matches!(concern, Concern::Unhealthy(_)) && on_unhealthy == Some(OnUnhealthy::Restart)
    }
}

fn stopped(outputs: Outputs) -> Departure {
    Departure {
        kind: DepartureKind::Stopped,
        end: End::shutdown(outputs),
    }
}

/// Waits between two runs: the output of one comes before that of the next. False if the
/// workload is to stop.
async fn pause(delay: Duration, outputs: &mut Outputs, orders: &mut Orders<'_>) -> bool {
    let pause = async {
        sleep(delay).await;
        outputs.finished().await;
    };
    tokio::select! {
        () = pause => true,
        _ = orders.stop() => false,
    }
}
