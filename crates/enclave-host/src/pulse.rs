//! Time in which this process was not run: it was stopped by a signal, or
//! together with its machine. What others did meanwhile could not be seen, so
//! deadlines for their silence must not count it.

use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

/// How often a loop must look, and how much later it may do so on a busy machine.
const TICK: Duration = Duration::from_secs(1);
const TOLERANCE: Duration = Duration::from_secs(1);

/// The pulse of a loop: it ticks once a second, and tells when it did not.
#[derive(Debug)]
pub struct Pulse {
    ticks: Interval,
    last: Instant,
}

impl Pulse {
    /// A pulse that begins now.
    pub fn start() -> Self {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            ticks,
            last: Instant::now(),
        }
    }

    /// Waits for the next tick. Cancellation safe.
    pub async fn tick(&mut self) {
        self.ticks.tick().await;
    }

    /// The time that was lost since the last call, if any. To be asked at `now`
    /// after every tick, and before a deadline is believed.
    pub fn lost(&mut self, now: Instant) -> Option<Duration> {
        let since = now.saturating_duration_since(self.last);
        self.last = now;
        (since > TICK + TOLERANCE).then(|| since.saturating_sub(TICK))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_runs_loses_nothing() {
        let mut pulse = Pulse::start();
        for _ in 0..100 {
            pulse.tick().await;
            assert_eq!(pulse.lost(Instant::now()), None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_is_stopped_loses_that_time_once() {
        let mut pulse = Pulse::start();
        pulse.tick().await;
        assert_eq!(pulse.lost(Instant::now()), None);
        let stop = Duration::from_secs(75);
        tokio::time::advance(stop).await;
        let lost = pulse.lost(Instant::now()).unwrap();
        assert!(
            (stop.saturating_sub(TICK)..=stop).contains(&lost),
            "{lost:?}"
        );
        assert_eq!(pulse.lost(Instant::now()), None);
        pulse.tick().await;
        assert_eq!(pulse.lost(Instant::now()), None);
    }
}
