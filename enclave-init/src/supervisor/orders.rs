//! What workloads are told, and when they are to stop.

use std::future::pending;
use std::time::{Duration, Instant};

use manifest::Command;
use nix::libc::c_int;
use tokio::sync::{mpsc, watch};

use crate::conditions::Condition;

/// What a running workload is told.
pub(super) enum Order {
    /// To be sent to its main process.
    Signal(c_int),
    /// To be run beside it.
    Command(Command),
}

/// That the workloads are to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stop {
    at: Instant,
    /// How long all of them together may take from then on; none if each has its own time.
    given: Option<Duration>,
    /// Whether somebody has asked for it; otherwise the enclave ends by itself.
    pub(super) is_asked: bool,
}

impl Stop {
    /// Somebody asks for it.
    pub(super) fn asked(given: Option<Duration>) -> Self {
        Self {
            at: Instant::now(),
            given,
            is_asked: true,
        }
    }

    /// The enclave ends by itself.
    pub(super) fn by_itself() -> Self {
        Self {
            is_asked: false,
            ..Self::asked(None)
        }
    }

    /// What two requests come to: the time is what is over sooner.
    pub(super) fn and(self, other: Self) -> Self {
        let is_sooner = match (self.end(), other.end()) {
            (Some(own), Some(other)) => other < own,
            (own, other) => own.is_none() && other.is_some(),
        };
        Self {
            is_asked: self.is_asked || other.is_asked,
            ..if is_sooner { other } else { self }
        }
    }

    fn end(&self) -> Option<Instant> {
        self.at.checked_add(self.given?)
    }

    /// The time of one workload, which has had to wait for others, or has not: as much of what
    /// is left as it has of its `own` and those `below` that are stopped after it have together.
    pub(super) fn share(
        &self,
        has_waited: bool,
        own: Duration,
        below: Duration,
    ) -> Option<Duration> {
        let mut left = self.given?;
        if has_waited {
            left = left.saturating_sub(self.at.elapsed());
        }
        if below.is_zero() {
            return Some(left);
        }
        let all = own.saturating_add(below);
        Some(left.mul_f64(own.as_secs_f64() / all.as_secs_f64()))
    }
}

/// The orders for one workload.
pub(super) struct Orders<'a> {
    given: mpsc::Receiver<Order>,
    stop: watch::Receiver<Option<Stop>>,
    /// Those that are stopped before it.
    dependents: Vec<Condition<'a>>,
}

pub(super) enum Wanted {
    Stop(Stop),
    Order(Order),
}

impl<'a> Orders<'a> {
    pub(super) fn new(
        given: mpsc::Receiver<Order>,
        stop: watch::Receiver<Option<Stop>>,
        dependents: Vec<Condition<'a>>,
    ) -> Self {
        Self {
            given,
            stop,
            dependents,
        }
    }

    /// The next one. Cancellation safe.
    pub(super) async fn next(&mut self) -> Wanted {
        tokio::select! {
            stop = stopping(&mut self.stop, &self.dependents) => Wanted::Stop(stop),
            Some(order) = self.given.recv() => Wanted::Order(order),
        }
    }

    /// Waits until it is to stop. Cancellation safe.
    pub(super) async fn stop(&mut self) -> Stop {
        loop {
            if let Wanted::Stop(stop) = self.next().await {
                return stop;
            }
        }
    }

    /// Waits for another request to stop than that which was given last. Cancellation safe.
    pub(super) async fn another(&mut self) -> Stop {
        loop {
            if self.stop.changed().await.is_err() {
                return pending().await;
            }
            if let Some(stop) = *self.stop.borrow_and_update() {
                return stop;
            }
        }
    }

    /// Waits until the enclave is ending: what does not run is not started. Cancellation safe.
    pub(super) async fn ending(&mut self) {
        if self.stop.wait_for(Option::is_some).await.is_err() {
            pending::<()>().await;
        }
    }

    /// Whether the enclave is ending.
    pub(super) fn is_ending(&self) -> bool {
        self.stop.borrow().is_some()
    }

    /// Whether others are stopped before it.
    pub(super) fn has_dependents(&self) -> bool {
        !self.dependents.is_empty()
    }
}

async fn stopping(stop: &mut watch::Receiver<Option<Stop>>, dependents: &[Condition<'_>]) -> Stop {
    // The supervisor has the sender while there are workloads.
    if stop.wait_for(Option::is_some).await.is_err() {
        return pending().await;
    }
    for dependent in dependents {
        dependent.until_gone().await;
    }
    // It may have become another one meanwhile.
    let stop = *stop.borrow_and_update();
    stop.unwrap_or_else(Stop::by_itself)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn stop_that_is_shorter_takes_the_place_of_another() {
        let own = Stop::by_itself();
        let (long, short) = (Stop::asked(Some(SECOND * 9)), Stop::asked(Some(SECOND)));
        for (first, then, given) in [
            (own, short, Some(SECOND)),
            (short, own, Some(SECOND)),
            (long, short, Some(SECOND)),
            (short, long, Some(SECOND)),
            (own, own, None),
        ] {
            let both = first.and(then);
            assert_eq!(both.given, given);
            assert_eq!(both.is_asked, first.is_asked || then.is_asked);
        }
    }

    #[test]
    fn stop_shares_what_is_left_among_those_that_are_left() {
        let stop = Stop::asked(Some(SECOND * 9));
        let (own, none) = (SECOND * 10, Duration::ZERO);
        // Nobody comes after it.
        assert_eq!(stop.share(false, own, none), Some(SECOND * 9));
        assert_eq!(stop.share(false, none, none), Some(SECOND * 9));
        assert_eq!(stop.share(false, own, own * 2), Some(SECOND * 3));
        assert_eq!(stop.share(false, none, own), Some(Duration::ZERO));
        assert_eq!(Stop::asked(None).share(false, own, own), None);
        let over = Stop {
            at: Instant::now().checked_sub(SECOND * 10).unwrap(),
            ..stop
        };
        assert_eq!(over.share(true, own, none), Some(Duration::ZERO));
    }
}
