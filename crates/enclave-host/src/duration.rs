//! Lengths of time as the interfaces give them.

use std::time::Duration;

/// A length of time in milliseconds.
pub fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
