//! How long to wait before the gate is asked again.

use std::time::Duration;

use tokio::time::Instant;

/// While a deployment or an operator may be waiting for the enclave it is asked this often.
const EAGER_INTERVAL: Duration = Duration::from_secs(2);
/// How long that is.
const EAGER_TIME: Duration = Duration::from_secs(10 * 60);
/// The first pause after a failure, and the most, which double in between.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Pace {
    interval: Duration,
    eager_until: Option<Instant>,
    failures: u32,
}

impl Pace {
    pub(super) fn new(interval: Duration, start: Instant) -> Self {
        Self {
            interval,
            eager_until: Some(start + EAGER_TIME),
            failures: 0,
        }
    }

    /// After a round in which there was no challenge.
    pub(super) fn idle(&mut self, now: Instant) -> Duration {
        self.failures = 0;
        if self.eager_until.is_some_and(|until| now < until) {
            jittered(self.interval.min(EAGER_INTERVAL))
        } else {
            jittered(self.interval)
        }
    }

    /// After a round that somebody waits for the next of.
    pub(super) fn awaited(&mut self, now: Instant) -> Duration {
        self.eager_until = Some(now + EAGER_TIME);
        self.idle(now)
    }

    /// After a document was accepted.
    pub(super) fn accepted(&mut self) -> Duration {
        self.eager_until = None;
        self.failures = 0;
        jittered(self.interval)
    }

    /// After a round that failed, or a document that was refused.
    pub(super) fn failed(&mut self) -> Duration {
        let pause = FIRST_PAUSE
            .saturating_mul(1 << self.failures.min(10))
            .min(MAX_PAUSE);
        self.failures = self.failures.saturating_add(1);
        jittered(pause)
    }
}

/// From three quarters to five quarters of it, so that the instances of a fleet
/// do not ask all at once.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.75 + fastrand::f64() / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_about(pause: Duration, seconds: f64) {
        let seconds = pause.as_secs_f64() / seconds;
        assert!((0.75..=1.25).contains(&seconds), "{pause:?}");
    }

    #[test]
    fn it_is_eager_until_the_first_acceptance_or_for_some_minutes() {
        let start = Instant::now();
        let mut pace = Pace::new(Duration::from_secs(30), start);
        is_about(pace.idle(start), 2.0);
        is_about(pace.idle(start + EAGER_TIME), 30.0);
        is_about(pace.accepted(), 30.0);
        is_about(pace.idle(start), 30.0);
        is_about(pace.awaited(start), 2.0);
        is_about(pace.idle(start + EAGER_TIME / 2), 2.0);
        is_about(pace.idle(start + EAGER_TIME), 30.0);
        let mut quick = Pace::new(Duration::from_millis(100), start);
        is_about(quick.idle(start), 0.1);
    }

    #[test]
    fn failures_make_it_slower_up_to_a_minute() {
        let mut pace = Pace::new(Duration::from_secs(30), Instant::now());
        for expected in [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0] {
            is_about(pace.failed(), expected);
        }
        pace.idle(Instant::now());
        is_about(pace.failed(), 1.0);
    }
}
