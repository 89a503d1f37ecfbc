//! What is known of whether a condition holds.

use std::ops::Not;

/// Whether something holds, as far as that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Truth {
    No,
    Maybe,
    Yes,
}

impl Truth {
    pub(crate) fn all(truths: impl IntoIterator<Item = Self>) -> Self {
        truths.into_iter().min().unwrap_or(Self::Yes)
    }

    pub(crate) fn any(truths: impl IntoIterator<Item = Self>) -> Self {
        truths.into_iter().max().unwrap_or(Self::No)
    }
}

impl From<bool> for Truth {
    fn from(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }
}

impl Not for Truth {
    type Output = Self;

    fn not(self) -> Self {
        match self {
            Self::No => Self::Yes,
            Self::Maybe => Self::Maybe,
            Self::Yes => Self::No,
        }
    }
}
