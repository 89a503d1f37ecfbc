//! Why a call to KMS gave no plaintext.

use hyper::StatusCode;
use thiserror::Error;

use crate::aws::{Answer, CallError};

/// Why a call to KMS came to nothing. None of the messages holds anything secret.
#[derive(Debug, Error)]
pub(crate) enum KmsError {
    /// KMS says no, in its own words.
    #[error("KMS refused the call: {}", .0.refusal())]
    Refused(Box<Answer>),
    /// There is no answer.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The request is for another protocol.
    #[error(
        "this endpoint takes the operations of AWS KMS in its JSON protocol: send `X-Amz-Target: TrentService.` and an operation"
    )]
    UnknownOperation,
    /// The request's body cannot have a recipient.
    #[error("the body is no JSON object with each member once: {0}")]
    Request(String),
    /// Its sender is not the workload, or did not sign.
    #[error("{message}")]
    Caller {
        /// What KMS calls it.
        name: &'static str,
        message: String,
    },
    /// There is no key to encrypt to, or no document for it.
    #[error("KMS cannot be shown that this is an enclave: {0}")]
    Document(String),
    /// The answer is no answer to a call with a recipient.
    #[error(
        "KMS answered with a plaintext that is not encrypted to this enclave, and so was not asked whose enclave it is: is the endpoint AWS KMS, or an emulator that ignores `Recipient`?"
    )]
    InClear,
    /// What is to be opened cannot be. Nothing tells why: whoever makes such answers would
    /// learn of others from it.
    #[error("KMS's answer cannot be opened with this enclave's key: try again")]
    Unopened,
    /// Another key's.
    #[error(
        "KMS answered with the key {answered}, and {asked} was asked for: is the credentials' account the one that you mean?"
    )]
    OtherKey { asked: String, answered: String },
}

impl KmsError {
    /// Whether the same call may be answered otherwise later.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Refused(answer) => answer.is_transient(),
            Self::Call(error) => error.is_transient(),
            Self::Unopened => true,
            Self::UnknownOperation
            | Self::Request(_)
            | Self::Caller { .. }
            | Self::Document(_)
            | Self::InClear
            | Self::OtherKey { .. } => false,
        }
    }

    /// The status, and the name by which SDKs know the error.
    pub(crate) fn kind(&self) -> (StatusCode, &'static str) {
        match self {
            // Passed on as it came, where it can be.
            Self::Refused(answer) => (answer.status, "KMSException"),
            Self::Call(CallError::Request(_)) | Self::Request(_) => {
                (StatusCode::BAD_REQUEST, "SerializationException")
            }
            Self::UnknownOperation => (StatusCode::BAD_REQUEST, "UnknownOperationException"),
            Self::Caller { name, .. } => (StatusCode::BAD_REQUEST, name),
            Self::Call(_) | Self::Document(_) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "ServiceUnavailableException",
            ),
            Self::InClear | Self::Unopened | Self::OtherKey { .. } => {
                (StatusCode::BAD_GATEWAY, "InvalidAnswerException")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use hyper::HeaderMap;

    use super::*;

    #[test]
    fn kms_errors_have_kmss_own_words() {
        for (body, expected) in [
            (
                r#"{"__type":"AccessDeniedException","Message":"User: x is not authorized"}"#,
                "KMS refused the call: AccessDeniedException: User: x is not authorized",
            ),
            (
                r#"{"__type":"com.amazonaws.kms#ThrottlingException","message":"slow\ndown"}"#,
                r"KMS refused the call: ThrottlingException: slow\ndown",
            ),
            (
                r#"{"__type":"InvalidCiphertextException"}"#,
                "KMS refused the call: InvalidCiphertextException",
            ),
            (
                "<html>",
                "KMS refused the call: it answered with status 400 Bad Request and no reason",
            ),
        ] {
            let answer = Answer {
                status: StatusCode::BAD_REQUEST,
                headers: HeaderMap::new(),
                body: body.as_bytes().to_vec().into(),
            };
            assert_eq!(KmsError::Refused(answer.into()).to_string(), expected);
        }
    }
}
