//! Why a call came to nothing before the service answered it.

use thiserror::Error;

/// Why there is no answer. None of the messages holds anything secret.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum CallError {
    /// There is nothing to sign with.
    #[error("there are no AWS credentials: {0}")]
    NoCredentials(String),
    /// Others make calls, and go on making them.
    #[error("{0} calls are being made already, and none ended in time: make fewer at a time")]
    Busy(usize),
    /// The agent, or the network behind it, has no connection for us.
    #[error(
        "{endpoint} cannot be reached: {reason}; the parent's agent connects the enclave, so look there"
    )]
    Unreachable {
        /// Host and port.
        endpoint: String,
        reason: String,
    },
    /// Whoever answers is not the service.
    #[error(
        "TLS with {endpoint} failed: {reason}; if the service is AWS's, somebody between it and the enclave answers in its place, or the enclave's clock is wrong; if it is not, name its root in the manifest"
    )]
    Tls {
        /// Host and port.
        endpoint: String,
        reason: String,
    },
    /// The connection ended in the middle of a call.
    #[error("the connection to {endpoint} broke: {reason}; try again")]
    Broken {
        /// Host and port.
        endpoint: String,
        reason: String,
    },
    /// The service takes too long.
    #[error("{endpoint} did not answer within {seconds} s: try again")]
    TimedOut {
        /// Host and port.
        endpoint: String,
        seconds: u64,
    },
    /// The answer is larger than any of the service's.
    #[error("{endpoint} answered with more than {limit} bytes")]
    TooLarge {
        /// Host and port.
        endpoint: String,
        limit: usize,
    },
    /// The request cannot be written down.
    #[error("the request cannot be made: {0}")]
    Request(String),
}

impl CallError {
    /// Whether the same call may be answered later.
    pub(crate) const fn is_transient(&self) -> bool {
        match self {
            Self::NoCredentials(_)
            | Self::Busy(_)
            | Self::Unreachable { .. }
            | Self::Broken { .. }
            | Self::TimedOut { .. } => true,
            Self::Tls { .. } | Self::TooLarge { .. } | Self::Request(_) => false,
        }
    }
}
