//! Why a request failed.

use std::time::Duration;

use plain_text::{plain_start, plain_words};
use thiserror::Error;

use crate::endpoint::Service;

/// Why a request failed. Every message names the service and the operation.
#[derive(Debug, Error)]
pub enum Error {
    /// There are no credentials, or they could not be had.
    #[error(
        "{service} {operation}: there are no credentials: {reason}; on an instance attach an instance profile, elsewhere set AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    )]
    Credentials {
        /// The service.
        service: Service,
        /// The operation.
        operation: &'static str,
        /// Why.
        reason: String,
    },
    /// The request could not be made: a name or a value that HTTP cannot carry.
    #[error("{service} {operation}: the request cannot be made: {reason}")]
    Request {
        /// The service.
        service: Service,
        /// The operation.
        operation: &'static str,
        /// Why.
        reason: String,
    },
    /// The service was not reached, or its answer was not.
    #[error("{service} {operation}{}{}: {reason}", at(host.as_deref()), after(*attempts))]
    Unreachable {
        /// The service.
        service: Service,
        /// The operation.
        operation: &'static str,
        /// The host that was asked, if it is known.
        host: Option<String>,
        /// How often it was tried.
        attempts: u32,
        /// Whether it took too long, the last time.
        timed_out: bool,
        /// Why.
        reason: String,
    },
    /// The service has refused.
    #[error("{}", refusal(*service, operation, *status, code, message, request_id.as_deref()))]
    Refused {
        /// The service.
        service: Service,
        /// The operation.
        operation: &'static str,
        /// The HTTP status.
        status: u16,
        /// AWS's error code, such as `AccessDeniedException`; may be empty.
        code: String,
        /// The service's own words; may be empty.
        message: String,
        /// What AWS's support asks for.
        request_id: Option<String>,
        /// What the service asked to wait before another attempt.
        retry_after: Option<Duration>,
    },
    /// The answer stopped before its end.
    #[error("{service} {operation}: the answer broke off: {reason}")]
    Broken {
        /// The service.
        service: Service,
        /// The operation.
        operation: &'static str,
        /// Why.
        reason: String,
    },
    /// The answer is larger than it may be.
    #[error("{service} {operation}: the answer has more than {limit} bytes")]
    TooLarge {
        /// The service.
        service: Service,
        /// The operation.
        operation: &'static str,
        /// The limit in bytes.
        limit: usize,
    },
    /// The answer is not what the service's reference describes.
    #[error("{service} {operation}: the answer is not understood: {reason}")]
    Malformed {
        /// The service.
        service: Service,
        /// The operation.
        operation: &'static str,
        /// Why.
        reason: String,
    },
}

impl Error {
    /// AWS's error code, if the service has refused with one.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Refused { code, .. } if !code.is_empty() => Some(code),
            _ => None,
        }
    }

    /// The HTTP status, if the service has refused.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// Whether what was asked for is not there.
    pub fn is_not_found(&self) -> bool {
        self.status() == Some(404)
            || self.code().is_some_and(|code| {
                code.contains("NotFound") || matches!(code, "NoSuchKey" | "NoSuchBucket")
            })
    }

    /// Whether the service or the connection to it took too long.
    pub fn is_timeout(&self) -> bool {
        matches!(
            self,
            Self::Unreachable {
                timed_out: true,
                ..
            }
        )
    }

    /// Whether the credentials do not permit it.
    pub fn is_denied(&self) -> bool {
        self.code()
            .is_some_and(|code| code.starts_with("AccessDenied") || code == "UnauthorizedOperation")
            || (self.status() == Some(403) && self.code().is_none())
    }

    /// Whether the service asked for fewer requests.
    pub fn is_throttled(&self) -> bool {
        self.status() == Some(429) || self.code().is_some_and(|code| THROTTLES.contains(&code))
    }

    /// Whether the credentials are at fault, and new ones may help.
    pub(crate) fn wants_new_credentials(&self) -> bool {
        matches!(
            self.code(),
            Some(
                "ExpiredToken"
                    | "ExpiredTokenException"
                    | "InvalidClientTokenId"
                    | "InvalidToken"
                    | "RequestExpired"
                    | "UnrecognizedClientException"
            )
        )
    }

    /// Whether the signature is at fault, or, where the answer has no words as that
    /// to HEAD, may be: another time may help.
    pub fn blames_signature(&self) -> bool {
        match self.code() {
            Some(code) => matches!(
                code,
                "AuthFailure"
                    | "InvalidSignatureException"
                    | "RequestExpired"
                    | "RequestTimeTooSkewed"
                    | "SignatureDoesNotMatch"
            ),
            None => self.status() == Some(403),
        }
    }

    /// Whether the same request may succeed a moment later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Broken { .. } => true,
            Self::Refused { status, .. } => {
                self.is_throttled() || matches!(status, 500 | 502 | 503 | 504)
            }
            _ => false,
        }
    }
}

/// What services answer that were asked too often, from the SDKs' retry rules.
const THROTTLES: [&str; 14] = [
    "BandwidthLimitExceeded",
    "EC2ThrottledException",
    "LimitExceededException",
    "PriorRequestNotComplete",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestThrottledException",
    "SlowDown",
    "ThrottledException",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
    "TransactionInProgressException",
];

/// Most characters of a service's words that go into a line of a log.
const MAX_WORDS: usize = 1000;

/// A service's words, for a line of a log.
pub(crate) fn one_line(words: &str) -> String {
    plain_start(&plain_words(words), MAX_WORDS)
}

fn at(host: Option<&str>) -> String {
    host.map_or_else(String::new, |host| format!(" at {host}"))
}

fn after(attempts: u32) -> String {
    match attempts {
        0 | 1 => String::new(),
        more => format!(", after {more} attempts"),
    }
}

fn refusal(
    service: Service,
    operation: &str,
    status: u16,
    code: &str,
    message: &str,
    request_id: Option<&str>,
) -> String {
    let code = match code {
        "" => String::new(),
        code => format!(" {code}"),
    };
    let message = match message {
        "" => String::new(),
        message => format!(": {message}"),
    };
    let request = request_id.map_or_else(String::new, |id| format!(" (request {id})"));
    format!("{service} {operation} was refused with HTTP status {status}{code}{message}{request}")
}
