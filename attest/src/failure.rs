//! Failures and their exit codes.

/// A failure and the exit code that belongs to it.
pub(crate) struct Failure {
    pub(crate) code: u8,
    pub(crate) error: anyhow::Error,
}

/// A document that was refused is no failure, but has a code too.
pub(crate) const REJECTED: u8 = 1;
const USAGE: u8 = 2;
const UNREADABLE: u8 = 3;
pub(crate) const FAILED: u8 = 4;

pub(crate) fn rejected(error: anyhow::Error) -> Failure {
    Failure {
        code: REJECTED,
        error,
    }
}

pub(crate) fn usage(error: anyhow::Error) -> Failure {
    Failure { code: USAGE, error }
}

pub(crate) fn unreadable(error: anyhow::Error) -> Failure {
    Failure {
        code: UNREADABLE,
        error,
    }
}

pub(crate) fn failed(error: anyhow::Error) -> Failure {
    Failure {
        code: FAILED,
        error,
    }
}
