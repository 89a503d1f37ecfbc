//! The verifier's clock.

use std::time::Duration;

/// What the verifier's clock shows, and by how much it may be wrong, behind or ahead.
/// Whatever is compared with the time is compared here.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    /// Milliseconds since 1970; a clock may be set to an earlier year.
    now_ms: i128,
    skew: Duration,
}

impl Clock {
    pub(crate) const fn new(now_ms: i128, skew: Duration) -> Self {
        Self { now_ms, skew }
    }

    pub(crate) const fn now_ms(self) -> i128 {
        self.now_ms
    }

    /// By how much the clock may be wrong.
    pub(crate) const fn skew(self) -> Duration {
        self.skew
    }

    /// By how much the clock is behind an instant that has been, if that is more than it
    /// may be wrong.
    pub(crate) fn behind(self, past_ms: i128) -> Option<Duration> {
        let behind = self.until(past_ms);
        (behind > self.skew).then_some(behind)
    }

    /// How long an end is over, if that is more than the clock may be ahead.
    pub(crate) fn over(self, end_ms: i128) -> Option<Duration> {
        let over = self.since(end_ms);
        (over > self.skew).then_some(over)
    }

    /// What is left until an instant, by this clock; nothing if it has been.
    pub(crate) fn until(self, instant_ms: i128) -> Duration {
        duration(instant_ms.saturating_sub(self.now_ms))
    }

    /// What has passed since an instant, by this clock; nothing if it lies ahead.
    pub(crate) fn since(self, instant_ms: i128) -> Duration {
        duration(self.now_ms.saturating_sub(instant_ms))
    }
}

/// A number of milliseconds, none if it is negative.
fn duration(milliseconds: i128) -> Duration {
    Duration::from_millis(u64::try_from(milliseconds.max(0)).unwrap_or(u64::MAX))
}

/// A duration for people, to the millisecond.
pub(crate) fn seconds(duration: Duration) -> String {
    match duration.subsec_millis() {
        0 => format!("{} s", duration.as_secs()),
        milliseconds => format!("{}.{milliseconds:03} s", duration.as_secs()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_may_be_wrong_by_its_skew_in_both_directions_and_no_more() {
        let clock = Clock::new(1_000_000, Duration::from_secs(60));
        let second = Duration::from_secs(1);
        assert_eq!(clock.behind(1_060_000), None);
        assert_eq!(clock.behind(1_061_000), Some(61 * second));
        assert_eq!(clock.behind(0), None);
        assert_eq!(clock.over(940_000), None);
        assert_eq!(clock.over(939_000), Some(61 * second));
        assert_eq!(clock.over(2_000_000), None);
        assert_eq!(clock.since(999_000), second);
        assert_eq!(clock.since(1_001_000), Duration::ZERO);
    }

    #[test]
    fn a_clock_of_any_year_gives_no_wrong_answer() {
        for skew in [Duration::ZERO, Duration::from_secs(60)] {
            let before_1970 = Clock::new(-1, skew);
            assert!(before_1970.behind(1_700_000_000_000).is_some());
            for end in [i128::MIN, i128::MAX] {
                let clock = Clock::new(end, skew);
                let (behind, over) = (clock.behind(0), clock.over(0));
                assert_eq!((behind.is_some(), over.is_some()), (end < 0, end > 0));
            }
        }
        assert_eq!(seconds(Duration::from_millis(61_007)), "61.007 s");
    }
}
