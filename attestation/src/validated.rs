//! What is left of a chain once it has been checked: keys, and until when they hold.

use std::sync::Arc;

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

    fn contains(self, now_ms: i128) -> bool {
        (self.first_ms..=self.last_ms).contains(&now_ms)
    }
}

impl Authority {
    /// Whether all above still holds at this time with this many authorities below.
    pub(crate) fn serves(&self, now_ms: i128, below: usize) -> bool {
        self.valid.contains(now_ms) && below <= self.below
    }
}

impl Leaf {
    pub(crate) fn serves(&self, now_ms: i128) -> bool {
        self.valid.contains(now_ms)
    }
}
