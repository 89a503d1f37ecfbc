//! What a failure says about when to try again.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Kinds of failures, as far as they differ in what helps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorClass {
    /// The destination wants fewer requests.
    Throttled,
    /// The destination has a problem of its own.
    Server,
    /// No answer in time.
    Timeout,
    /// No connection.
    Connection,
    /// There are no valid credentials just now.
    Credentials,
    /// The credentials do not permit it.
    Denied,
    /// The place to write to is not there, and cannot be made.
    NotFound,
    /// The destination does not take what it was sent.
    Refused,
    /// The local file system refuses.
    Disk,
}

impl ErrorClass {
    /// Its name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Throttled => "throttled",
            Self::Server => "server",
            Self::Timeout => "timeout",
            Self::Connection => "connection",
            Self::Credentials => "credentials",
            Self::Denied => "denied",
            Self::NotFound => "not_found",
            Self::Refused => "refused",
            Self::Disk => "disk",
        }
    }

    /// The shortest and the longest wait.
    const fn waits(self) -> (Duration, Duration) {
        match self {
            Self::Throttled => (Duration::from_millis(200), Duration::from_secs(20)),
            Self::Server | Self::Timeout | Self::Connection => {
                (Duration::from_millis(100), Duration::from_secs(20))
            }
            Self::Disk => (Duration::from_millis(500), Duration::from_secs(5)),
            Self::Credentials | Self::NotFound => {
                (Duration::from_millis(500), Duration::from_secs(30))
            }
            // Somebody has to change something first.
            Self::Denied | Self::Refused => (Duration::from_secs(5), Duration::from_secs(120)),
        }
    }

    /// The wait after so many failures in a row, with full jitter: many agents
    /// that were refused at the same time do not come back at the same time.
    pub(crate) fn backoff(self, failures: u32) -> Duration {
        let (first, longest) = self.waits();
        let ceiling = first
            .saturating_mul(1_u32.checked_shl(failures).unwrap_or(u32::MAX))
            .min(longest);
        ceiling.mul_f64(fastrand::f64()).max(first / 10)
    }
}

/// Why a batch was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendError {
    /// Its kind.
    pub class: ErrorClass,
    /// What failed, for people.
    pub message: String,
}

impl SendError {
    pub(crate) fn new(class: ErrorClass, message: impl Into<String>) -> Self {
        Self {
            class,
            message: message.into(),
        }
    }

    /// A failure of a file or a socket.
    pub(crate) fn io(class: ErrorClass, what: &str, error: &std::io::Error) -> Self {
        let class = match error.kind() {
            std::io::ErrorKind::TimedOut => ErrorClass::Timeout,
            _ => class,
        };
        Self::new(class, format!("{what}: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_stay_within_their_bounds() {
        for class in [ErrorClass::Throttled, ErrorClass::Denied, ErrorClass::Disk] {
            let (first, longest) = class.waits();
            for failures in [0, 1, 5, 31, 32, u32::MAX] {
                for _ in 0..100 {
                    let wait = class.backoff(failures);
                    assert!(wait >= first / 10 && wait <= longest, "{class:?} {wait:?}");
                }
            }
            assert!(
                (0..1000).any(|_| class.backoff(40) > longest / 2),
                "{class:?}"
            );
        }
    }
}
