//! What is left of a chain once it has been checked: keys, and until when they hold.

use std::sync::Arc;

use crate::clock::Clock;
use crate::crypto::Es384Key;

/// A chain that has been checked down to this authority: what the certificate
/// below it needs.
#[derive(Clone)]
pub(crate) struct Authority {
    pub(crate) key: Es384Key,
    pub(crate) subject: Arc<[u8]>,
    pub(crate) valid: Validity,
    /// How many authorities may be below this one, by all limits above.
    pub(crate) below: usize,
}

/// A leaf's key, once its chain has been checked.
#[derive(Clone)]
pub(crate) struct Leaf {
    pub(crate) key: Es384Key,
    pub(crate) valid: Validity,
}

/// When every certificate from the root down to one is valid, in milliseconds
/// since 1970.
#[derive(Clone, Copy)]
pub(crate) struct Validity {
    first_ms: i128,
    last_ms: i128,
}

impl Validity {
    pub(crate) const ALWAYS: Self = Self {
        first_ms: i128::MIN,
        last_ms: i128::MAX,
    };

    pub(crate) fn and(self, (first_ms, last_ms): (i128, i128)) -> Self {
        Self {
            first_ms: self.first_ms.max(first_ms),
            last_ms: self.last_ms.min(last_ms),
        }
    }

    /// Whether there is no instant at which all of them are valid, whatever the clock.
    pub(crate) fn is_empty(self) -> bool {
        self.first_ms > self.last_ms
    }

    /// The bounds are the certificates' own: what one policy has a clock be wrong by says
    /// nothing to the next.
    fn contains(self, clock: Clock) -> bool {
        clock.behind(self.first_ms).is_none() && clock.over(self.last_ms).is_none()
    }
}

impl Authority {
    /// Whether all above still holds by this clock with this many authorities below.
    pub(crate) fn serves(&self, clock: Clock, below: usize) -> bool {
        self.valid.contains(clock) && below <= self.below
    }
}

impl Leaf {
    pub(crate) fn serves(&self, clock: Clock) -> bool {
        self.valid.contains(clock)
    }
}
