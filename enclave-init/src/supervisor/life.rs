//! One workload's life: started when those before it are ready, probed, restarted by its
//! policy, and stopped when those after it have ended.
//!
//! A workload is its first process. When that ends, what it left behind is
//! killed, as in any container: nothing holds ports or pipes that the next
//! start needs, and a program that puts itself into the background has ended.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use link::control::{EndCause, ExitStatus, FromInit, HealthState};
use link::{EndCode, Text};
use manifest::{OnUnhealthy, Workload, WorkloadKind, WorkloadName};
use tokio::time::sleep;

use super::Supervisor;
use super::end::{End, Outputs, code, how, in_boot};
use super::orders::Orders;
use crate::companion::Companions;
use crate::conditions::{Condition, Departed};
use crate::confinement::{Cgroup, Confinement, Events};
use crate::logs::Logs;
use crate::notifications::Notifications;
use crate::probing::Concern;
use crate::readiness::Readiness;
use crate::reaper::Reaper;
use crate::restarts::{Restarts, spread};
use crate::workload::StandingBy;

/// The end of a workload's life.
pub(super) struct Departure {
    pub(super) kind: Departed,
    /// What it makes of the enclave if that ends with it.
    pub(super) end: End,
}

/// One workload, and what its life needs.
pub(super) struct Life<'a> {
    pub(super) all: &'a Supervisor<'a>,
    pub(super) workload: &'a Workload,
    pub(super) confinement: &'a Arc<Confinement>,
    /// Those whose records have its name.
    pub(super) logs: Logs,
    /// Its place in the image's list.
    pub(super) index: usize,
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
        // What ends by itself while the enclave is ending has not made it unhealthy.
        let kind = match departure.kind {
            Departed::Ended if orders.is_ending() => Departed::Stopped,
            kind => kind,
        };
        self.condition
            .set_gone(kind, end.code.is_none(), &end.detail);
        departure
    }

    /// Waits for those before it. Gives the end of a workload that is not started.
    async fn wait(&self, orders: &mut Orders<'_>) -> Option<Departure> {
        let failed = tokio::select! {
            biased;
            // What is not started need not be stopped in its turn.
            () = orders.ending() => return Some(stopped(Outputs::default())),
            failed = self.until_those_before_are_ready() => failed?,
        };
        let cause = if self.all.handle.is_ready() {
            EndCause::InitFailed
        } else {
            EndCause::BootFailed
        };
        let detail = format!(
            "{} cannot be started: {failed}, after which it is started, has ended",
            self.workload.subject()
        );
        Some(Departure {
            kind: Departed::Ended,
            end: End::failed(cause, EndCode::WorkloadStart, detail),
        })
    }

    /// Gives the first of them that will never be. Cancellation safe.
    async fn until_those_before_are_ready(&self) -> Option<&WorkloadName> {
        let before = self.before.iter();
        let mut awaited: Vec<_> = before
            .map(|(name, before)| (*name, Box::pin(before.until_ready())))
            .collect();
        poll_fn(|context| {
            let mut index = 0;
            while let Some((name, ready)) = awaited.get_mut(index) {
                match ready.as_mut().poll(context) {
                    Poll::Ready(false) => return Poll::Ready(Some(*name)),
                    Poll::Ready(true) => drop(awaited.remove(index)),
                    Poll::Pending => index += 1,
                }
            }
            let Some((name, _)) = awaited.first() else {
                return Poll::Ready(None);
            };
            self.condition.set_waiting(format!("it waits for {name}"));
            Poll::Pending
        })
        .await
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
                Err(error) if is_first => return self.not_started(&error, is_first),
                Err(error) => match restarts.next(true, Duration::ZERO).map(spread) {
                    None => return self.not_started(&error, is_first),
                    Some(delay) => {
                        self.logs.error(format!("{error}; restart in {delay:?}"));
                        if !pause(delay, &mut Outputs::default(), orders).await {
                            return stopped(Outputs::default());
                        }
                        continue;
                    }
                },
            };
            let watched = self.watch(&mut started, orders).await;
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
                    Some(Concern::NotReady(_)) if !self.condition.was_ready() => {
                        EndCause::BootFailed
                    }
                    _ => EndCause::WorkloadExited(status),
                };
                let kind = if workload.kind == WorkloadKind::Batch && code.is_none() {
                    Departed::Succeeded
                } else {
                    Departed::Ended
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
        let kind = Departed::Ended;
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
        kind: Departed::Stopped,
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
        biased;
        // What does not run need not be stopped in its turn.
        () = orders.ending() => false,
        () = pause => true,
    }
}
