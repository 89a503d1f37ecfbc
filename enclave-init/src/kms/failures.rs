//! Log lines about calls that came to nothing. A workload decides how many there are, so
//! each kind has a line a minute.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use link::kms::{Operation, Outcome};

use crate::logs::Logs;

/// The least time between two lines of one kind.
const PAUSE: Duration = Duration::from_secs(60);

/// Writes the lines.
#[derive(Debug)]
pub(super) struct Failures {
    logs: Logs,
    /// What was told last of each operation and outcome: closed sets, so they are few.
    told: Mutex<BTreeMap<(Operation, Outcome), Told>>,
}

#[derive(Debug, Clone, Copy)]
struct Told {
    at: Instant,
    left_out: u64,
}

impl Failures {
    pub(super) fn new(logs: Logs) -> Self {
        Self {
            logs,
            told: Mutex::default(),
        }
    }

    /// Tells of a call that came to this, unless another was just told of.
    pub(super) fn tell(&self, operation: &str, outcome: Outcome, reason: &dyn ToString) {
        let operation = Operation::named(operation);
        let Some(left_out) = self.turn((operation, outcome), Instant::now()) else {
            return;
        };
        // KMS repeats what the workload has named.
        let reason = if self.logs.is_released() {
            reason.to_string()
        } else {
            format!("{}; more stays inside, as log lines do", outcome.name())
        };
        let advice = advice(outcome).map_or_else(String::new, |advice| format!("; {advice}"));
        let more = match left_out {
            0 => String::new(),
            count => format!(" ({count} more of these since the last line)"),
        };
        let name = operation.name();
        self.logs
            .error(format!("kms: {name}: {reason}{advice}{more}"));
    }

    /// How many were left out since the last line, if it is time for another.
    fn turn(&self, kind: (Operation, Outcome), now: Instant) -> Option<u64> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let last = told.get(&kind).copied();
        let (told_now, left_out) = match last {
            Some(Told { at, left_out }) if now.duration_since(at) < PAUSE => {
                let left_out = left_out.saturating_add(1);
                (Told { at, left_out }, None)
            }
            _ => {
                let earlier = last.map_or(0, |last| last.left_out);
                (
                    Told {
                        at: now,
                        left_out: 0,
                    },
                    Some(earlier),
                )
            }
        };
        told.insert(kind, told_now);
        left_out
    }
}

/// What to do, where the error does not say it.
const fn advice(outcome: Outcome) -> Option<&'static str> {
    Some(match outcome {
        Outcome::AccessDenied => {
            "have the key's policy allow this to the instance's role and to this image's measurements, as `image-builder kms-policy` writes it (in debug mode the measurements are zero)"
        }
        Outcome::Throttled => "ask for a higher quota, or make fewer calls; SDKs try again",
        Outcome::CredentialsRefused => {
            "the enclave's clock is wrong (`GET /v1/time` says how wrong), or the credentials that the parent has handed in are not those of a role in use"
        }
        Outcome::CiphertextRefused => {
            "it was encrypted with another key or encryption context, or has been damaged"
        }
        Outcome::Failed => "SDKs try again",
        Outcome::NoCredentials => "has the instance a role? The agent's log says why it has none",
        Outcome::Answered
        | Outcome::Refused
        | Outcome::Unreachable
        | Outcome::NotOurs
        | Outcome::Busy
        | Outcome::NotMade => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kms_failures_of_one_kind_have_a_line_a_minute() {
        let failures = Failures::new(Logs::new(manifest::Logs::default(), false));
        let denied = (Operation::Decrypt, Outcome::AccessDenied);
        let throttled = (Operation::Decrypt, Outcome::Throttled);
        let start = Instant::now();
        assert_eq!(failures.turn(denied, start), Some(0));
        assert_eq!(failures.turn(denied, start + PAUSE / 2), None);
        assert_eq!(failures.turn(throttled, start + PAUSE / 2), Some(0));
        assert_eq!(failures.turn(denied, start + PAUSE / 2), None);
        assert_eq!(failures.turn(denied, start + PAUSE), Some(2));
        assert_eq!(failures.turn(denied, start + PAUSE * 2), Some(0));
    }
}
