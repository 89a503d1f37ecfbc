//! What is known of the time: an interval at a reading of an oscillator, which
//! widens as that runs on.

/// Nanoseconds: of the raw oscillator since some moment, or of Unix time. Wide
/// enough for whatever a source may say.
pub(crate) type Nanos = i128;

/// One in a billion.
const BILLION: Nanos = 1_000_000_000;

/// `time` as an oscillator counts it that is wrong by `ppb` parts in a billion,
/// less the time itself. Rounded away from zero.
pub(super) fn share(time: Nanos, ppb: i64) -> Nanos {
    let product = time.saturating_mul(ppb.into());
    let rounding = product.signum() * (BILLION - 1);
    product.saturating_add(rounding) / BILLION
}

/// That the true time was between `earliest` and `latest`, both included, when
/// the raw oscillator read `raw`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Belief {
    pub(crate) raw: Nanos,
    pub(crate) earliest: Nanos,
    pub(crate) latest: Nanos,
}

impl Belief {
    /// What a source said between two readings of the oscillator, to the nearest
    /// `resolution` below. It may have looked at its clock right after the first,
    /// and the oscillator may be slow by a tenth.
    pub(super) fn between(before: Nanos, after: Nanos, time: Nanos, resolution: Nanos) -> Self {
        let elapsed = after.saturating_sub(before).max(0);
        Self {
            raw: after,
            earliest: time,
            latest: time
                .saturating_add(elapsed)
                .saturating_add(elapsed / 8)
                .saturating_add(resolution),
        }
    }

    /// The same at another reading of the oscillator, which is wrong by `drift`
    /// parts in a billion at most.
    pub(super) fn at(self, raw: Nanos, drift: i64) -> Self {
        let elapsed = raw.saturating_sub(self.raw);
        let doubt = share(elapsed.saturating_abs(), drift);
        Self {
            raw,
            earliest: self.earliest.saturating_add(elapsed).saturating_sub(doubt),
            latest: self.latest.saturating_add(elapsed).saturating_add(doubt),
        }
    }

    /// What both say, of the same reading; nothing if they contradict each other.
    pub(super) fn and(self, other: Self) -> Option<Self> {
        let met = Self {
            raw: self.raw,
            earliest: self.earliest.max(other.earliest),
            latest: self.latest.min(other.latest),
        };
        (met.earliest <= met.latest).then_some(met)
    }

    /// What is certain if only one of both is right.
    pub(super) fn or(self, other: Self) -> Self {
        Self {
            raw: self.raw,
            earliest: self.earliest.min(other.earliest),
            latest: self.latest.max(other.latest),
        }
    }

    pub(super) fn middle(self) -> Nanos {
        self.earliest.saturating_add(self.width() / 2)
    }

    pub(super) fn width(self) -> Nanos {
        self.latest.saturating_sub(self.earliest)
    }

    /// How far `time` is outside: negative if it is earlier.
    pub(super) fn distance(self, time: Nanos) -> Nanos {
        if time < self.earliest {
            time.saturating_sub(self.earliest)
        } else {
            time.saturating_sub(self.latest).max(0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_belief_widens_with_time_in_both_directions() {
        let belief = Belief {
            raw: 0,
            earliest: 100,
            latest: 200,
        };
        let drift = 200_000;
        for seconds in [-10, 10] {
            let later = belief.at(seconds * BILLION, drift);
            let (low, high) = (100 + seconds * BILLION, 200 + seconds * BILLION);
            assert_eq!(
                (later.earliest, later.latest),
                (low - 2_000_000, high + 2_000_000)
            );
        }
        let never = belief.at(Nanos::MAX, i64::MAX);
        assert!(never.earliest <= never.latest);
    }

    #[test]
    fn doubt_is_never_rounded_to_nothing() {
        assert_eq!(share(1, 1), 1);
        assert_eq!(share(-1, 1), -1);
        assert_eq!(share(0, 1), 0);
        assert_eq!(share(BILLION, 200_000), 200_000);
    }

    #[test]
    fn two_beliefs_meet_or_contradict_each_other() {
        let belief = |earliest, latest| Belief {
            raw: 0,
            earliest,
            latest,
        };
        assert_eq!(belief(1, 5).and(belief(4, 9)), Some(belief(4, 5)));
        assert_eq!(belief(1, 5).and(belief(5, 9)), Some(belief(5, 5)));
        assert_eq!(belief(1, 5).and(belief(6, 9)), None);
        assert_eq!(belief(1, 5).or(belief(8, 9)), belief(1, 9));
        assert_eq!(belief(1, 5).distance(0), -1);
        assert_eq!(belief(1, 5).distance(3), 0);
        assert_eq!(belief(1, 5).distance(9), 4);
    }
}
