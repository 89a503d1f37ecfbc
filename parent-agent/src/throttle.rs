//! Lines that the enclave, its clients or strangers can have this agent write: so many
//! of each kind, and then only how many more there were.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use manifest::MAX_WORKLOADS;
use tokio::time::{Instant, interval};
use tracing::warn;

use crate::limit::{Bucket, Rate};

/// What is written of each kind: 5 lines a second, and 50 at once.
const RATE: Rate = Rate::constant(5, 50);
/// How often the lines that were left out are summed up.
const SUMMARY_INTERVAL: Duration = Duration::from_secs(10);

/// A kind of line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Line {
    /// The workload's health has changed.
    Health,
    /// One of several workloads has changed its state.
    Workload,
    /// The enclave's clock has changed its state.
    Clock,
    /// The enclave's verification of its own document came to something else.
    SelfCheck,
    /// A boot step has ended.
    BootStep,
    /// The workload has ended.
    WorkloadExited,
    /// A destination was refused to the enclave.
    EgressRefused,
    /// A client was refused.
    IngressRefused,
    /// An idle connection was closed for a new one.
    Evicted,
    /// A connection could not be accepted.
    AcceptFailed,
    /// A connection came from somebody who is not the enclave.
    Stranger,
    /// A control connection came to nothing.
    Control,
    /// A log connection has failed.
    Logs,
    /// Log records are missing.
    MissingRecords,
    /// The init does not take what it is told.
    NotTaken,
}

impl Line {
    const ALL: [Self; 15] = [
        Self::Health,
        Self::Workload,
        Self::Clock,
        Self::SelfCheck,
        Self::BootStep,
        Self::WorkloadExited,
        Self::EgressRefused,
        Self::IngressRefused,
        Self::Evicted,
        Self::AcceptFailed,
        Self::Stranger,
        Self::Control,
        Self::Logs,
        Self::MissingRecords,
        Self::NotTaken,
    ];

    /// The kind in status, metrics and summaries.
    const fn name(self) -> &'static str {
        match self {
            Self::Health => "health",
            Self::Workload => "workload",
            Self::Clock => "clock",
            Self::SelfCheck => "self-check",
            Self::BootStep => "boot-step",
            Self::WorkloadExited => "workload-exited",
            Self::EgressRefused => "egress-refused",
            Self::IngressRefused => "ingress-refused",
            Self::Evicted => "connection-evicted",
            Self::AcceptFailed => "accept-failed",
            Self::Stranger => "stranger",
            Self::Control => "control-connection",
            Self::Logs => "log-connection",
            Self::MissingRecords => "missing-records",
            Self::NotTaken => "message-not-taken",
        }
    }

    /// Whether one more may be written now about the workload of this number, each of which
    /// has its own rate: one that is restarted without end hides no other's end.
    pub(crate) fn may_be_written_of(self, workload: usize) -> bool {
        LINES.may_be_written_of(self, workload, Instant::now())
    }

    /// Whether one more may be written now; one that may not is counted.
    pub(crate) fn may_be_written(self) -> bool {
        LINES.may_be_written(self, Instant::now())
    }
}

/// How many lines were left out, by kind; kinds without any are not there.
pub(crate) fn left_out() -> BTreeMap<String, u64> {
    LINES.left_out()
}

/// Says from time to time how many lines were left out.
pub(crate) async fn summarise() {
    let mut ticks = interval(SUMMARY_INTERVAL);
    let mut told = BTreeMap::new();
    loop {
        ticks.tick().await;
        let now = left_out();
        for (line, count) in &now {
            let before = told.get(line).copied().unwrap_or_default();
            if *count > before {
                warn!(line, "{} more lines were left out", count - before);
            }
        }
        told = now;
    }
}

static LINES: Throttle = Throttle::new();

/// A bucket and a count for each kind.
#[derive(Debug)]
struct Throttle {
    kinds: [(Bucket, AtomicU64); Line::ALL.len()],
    workloads: [Bucket; MAX_WORKLOADS],
}

impl Throttle {
    const fn new() -> Self {
        Self {
            kinds: [const { (Bucket::new(RATE), AtomicU64::new(0)) }; Line::ALL.len()],
            workloads: [const { Bucket::new(RATE) }; MAX_WORKLOADS],
        }
    }

    fn may_be_written_of(&self, line: Line, workload: usize, now: Instant) -> bool {
        let may = self
            .workloads
            .get(workload)
            .is_some_and(|bucket| bucket.take(now));
        if !may && let Some((_, left_out)) = self.kinds.get(line as usize) {
            left_out.fetch_add(1, Ordering::Relaxed);
        }
        may
    }

    fn may_be_written(&self, line: Line, now: Instant) -> bool {
        let Some((bucket, left_out)) = self.kinds.get(line as usize) else {
            return false;
        };
        let may = bucket.take(now);
        if !may {
            left_out.fetch_add(1, Ordering::Relaxed);
        }
        may
    }

    fn left_out(&self) -> BTreeMap<String, u64> {
        Line::ALL
            .into_iter()
            .zip(&self.kinds)
            .map(|(line, (_, count))| (line.name().to_owned(), count.load(Ordering::Relaxed)))
            .filter(|(_, count)| *count > 0)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_one_kind_is_cut_off_and_counted_and_leaves_the_others_alone() {
        let throttle = Throttle::new();
        let now = Instant::now();
        let written = (0..20_000)
            .filter(|_| throttle.may_be_written(Line::Health, now))
            .count();
        assert_eq!(written, 50);
        assert_eq!(
            throttle.left_out(),
            BTreeMap::from([("health".to_owned(), 19_950)])
        );
        assert!(throttle.may_be_written(Line::BootStep, now));
        assert!(throttle.may_be_written(Line::Health, now + Duration::from_secs(1)));
    }

    #[test]
    fn every_kind_has_a_bucket_of_its_own() {
        for (index, line) in Line::ALL.into_iter().enumerate() {
            assert_eq!(line as usize, index, "{line:?}");
        }
    }
}
