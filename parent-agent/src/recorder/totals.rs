//! What only grows, and how much of it has been told: CloudWatch adds up, so a record
//! tells by how much something has grown since the one before.

use super::Ended;
use crate::history::LifeTotals;
use crate::status::Status;
use crate::traffic::Counts;

/// All that only grows.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) life: LifeTotals,
    /// Log records that did not reach a sink of this agent's.
    pub(crate) undelivered: u64,
    pub(crate) crashes: u64,
    /// Carried by this agent.
    pub(crate) egress: Carried,
    /// Carried by this agent.
    pub(crate) ingress: Carried,
}

/// One direction's traffic.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Carried {
    pub(crate) bytes: u64,
    pub(crate) joined: u64,
    pub(crate) refused: u64,
}

impl From<LifeTotals> for Totals {
    /// Where an agent begins that takes over what others have told of.
    fn from(life: LifeTotals) -> Self {
        Self {
            life,
            ..Self::default()
        }
    }
}

impl Totals {
    pub(crate) fn of(status: &Status, ended: Option<&Ended>) -> Self {
        let sinks = status.logs.sinks.iter();
        let undelivered = sinks.flat_map(|sink| sink.lost.values());
        Self {
            life: LifeTotals {
                restarts: status.restarts,
                lost: status.logs.lost_in_enclave(),
                oom_kills: status.limits.oom_kills,
                pids_refused: status.limits.pids_refused,
                clock_pauses: status.clock.as_ref().map_or(0, |clock| clock.pauses),
            },
            undelivered: undelivered.fold(0, |sum, &count| sum.saturating_add(count)),
            crashes: ended.map_or(0, |ended| ended.is_crash().into()),
            egress: status
                .egress
                .iter()
                .map(|egress| egress.counts)
                .sum::<Counts>()
                .into(),
            ingress: status
                .ingress
                .iter()
                .map(|ingress| ingress.counts)
                .sum::<Counts>()
                .into(),
        }
    }

    /// Log records that were lost, in the enclave or on the way to a sink.
    pub(crate) fn lost(&self) -> u64 {
        self.life.lost.saturating_add(self.undelivered)
    }

    /// By how much they have grown.
    pub(crate) fn since(&self, before: &Self) -> Self {
        self.with(before, u64::saturating_sub)
    }

    /// The larger ones: what was told once is not told again, whatever an enclave
    /// says of it later.
    pub(crate) fn max(&self, other: &Self) -> Self {
        self.with(other, u64::max)
    }

    fn with(&self, other: &Self, join: fn(u64, u64) -> u64) -> Self {
        let (life, others) = (&self.life, &other.life);
        Self {
            life: LifeTotals {
                restarts: join(life.restarts, others.restarts),
                lost: join(life.lost, others.lost),
                oom_kills: join(life.oom_kills, others.oom_kills),
                pids_refused: join(life.pids_refused, others.pids_refused),
                clock_pauses: join(life.clock_pauses, others.clock_pauses),
            },
            undelivered: join(self.undelivered, other.undelivered),
            crashes: join(self.crashes, other.crashes),
            egress: self.egress.with(other.egress, join),
            ingress: self.ingress.with(other.ingress, join),
        }
    }
}

impl From<Counts> for Carried {
    fn from(counts: Counts) -> Self {
        Self {
            bytes: counts.bytes_in.saturating_add(counts.bytes_out),
            joined: counts.connections,
            refused: counts.refused,
        }
    }
}

impl Carried {
    fn with(self, other: Self, join: fn(u64, u64) -> u64) -> Self {
        Self {
            bytes: join(self.bytes, other.bytes),
            joined: join(self.joined, other.joined),
            refused: join(self.refused, other.refused),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(number: u64) -> Totals {
        let carried = Carried {
            bytes: number,
            joined: number,
            refused: number,
        };
        Totals {
            life: LifeTotals {
                restarts: number,
                lost: number,
                oom_kills: number,
                pids_refused: number,
                clock_pauses: number,
            },
            undelivered: number,
            crashes: number,
            egress: carried,
            ingress: carried,
        }
    }

    #[test]
    fn totals_are_told_by_how_much_they_have_grown_also_when_they_begin_anew() {
        assert_eq!(totals(7).since(&totals(5)), totals(2));
        assert_eq!(totals(1).since(&totals(5)), Totals::default());
        assert_eq!(totals(1).max(&totals(5)), totals(5));
        assert_eq!(totals(u64::MAX).lost(), u64::MAX);
    }
}
