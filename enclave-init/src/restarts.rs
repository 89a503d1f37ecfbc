//! When a workload that has ended is started again.

use std::time::Duration;

use manifest::{Restart, RestartPolicy, WorkloadKind};

/// A delay between half of this one and all of it, by chance: what failed at once, in one
/// enclave or in many, is not started again at once.
pub(crate) fn spread(delay: Duration) -> Duration {
    let mut chance = [0; 4];
    match aws_lc_rs::rand::fill(&mut chance) {
        Ok(()) => spread_by(delay, u32::from_ne_bytes(chance)),
        // There is nothing to choose by.
        Err(_) => delay,
    }
}

fn spread_by(delay: Duration, chance: u32) -> Duration {
    let half = delay / 2;
    half + half.mul_f64(f64::from(chance) / f64::from(u32::MAX))
}

/// Counts restarts by the workload's policy.
#[derive(Debug)]
pub(crate) struct Restarts {
    kind: WorkloadKind,
    policy: Restart,
    attempts: u32,
}

/// A workload that ran this many times the longest delay is taken for settled.
const SETTLED_FACTOR: u32 = 10;

impl Restarts {
    pub(crate) fn new(kind: WorkloadKind, policy: Restart) -> Self {
        Self {
            kind,
            policy,
            attempts: 0,
        }
    }

    /// The delay before the next start of a workload that ran for `ran` and
    /// has failed, or ended well; `None` when it is not started again.
    pub(crate) fn next(&mut self, failed: bool, ran: Duration) -> Option<Duration> {
        let wanted = match self.policy.policy {
            RestartPolicy::Never => false,
            RestartPolicy::OnFailure => failed,
            RestartPolicy::Always => true,
        };
        if self.kind == WorkloadKind::Batch || !wanted {
            return None;
        }
        if ran >= self.policy.backoff.longest().saturating_mul(SETTLED_FACTOR) {
            self.attempts = 0;
        }
        if self.attempts >= self.policy.max {
            return None;
        }
        let delay = self.policy.backoff.delay(self.attempts);
        self.attempts += 1;
        Some(delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: bool = false;
    const FAILED: bool = true;
    const BRIEFLY: Duration = Duration::from_secs(1);

    fn restarts(kind: WorkloadKind, policy: RestartPolicy, max: u32) -> Restarts {
        let backoff = "1s..4s".parse().unwrap();
        Restarts::new(
            kind,
            Restart {
                policy,
                max,
                backoff,
            },
        )
    }

    #[test]
    fn delays_double_until_the_attempts_are_used_up() {
        let mut restarts = restarts(WorkloadKind::Service, RestartPolicy::OnFailure, 4);
        let delays: Vec<_> = (0..5)
            .map(|_| restarts.next(FAILED, BRIEFLY).map(|delay| delay.as_secs()))
            .collect();
        assert_eq!(delays, [Some(1), Some(2), Some(4), Some(4), None]);
        assert_eq!(
            restarts.next(FAILED, Duration::from_secs(40)),
            Some(Duration::from_secs(1))
        );
    }

    #[test]
    fn jitter_of_restarts_is_between_half_of_the_delay_and_all_of_it() {
        let delay = Duration::from_secs(4);
        assert_eq!(spread_by(delay, 0), Duration::from_secs(2));
        assert_eq!(spread_by(delay, u32::MAX), delay);
        let delays: Vec<_> = (0..100).map(|_| spread(delay)).collect();
        let range = Duration::from_secs(2)..=delay;
        assert!(delays.iter().all(|delay| range.contains(delay)));
        let first = delays.first().unwrap();
        assert!(delays.iter().any(|delay| delay != first));
    }

    #[test]
    fn policies() {
        use RestartPolicy::{Always, Never, OnFailure};
        for (policy, failed, restarted) in [
            (Never, FAILED, false),
            (OnFailure, OK, false),
            (OnFailure, FAILED, true),
            (Always, OK, true),
        ] {
            assert_eq!(
                restarts(WorkloadKind::Service, policy, 1)
                    .next(failed, BRIEFLY)
                    .is_some(),
                restarted
            );
            assert_eq!(
                restarts(WorkloadKind::Batch, policy, 1).next(failed, BRIEFLY),
                None
            );
        }
    }
}
