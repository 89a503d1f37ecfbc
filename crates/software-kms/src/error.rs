//! Refusals, by the names that KMS gives them.

use bytes::Bytes;
use http::{Response, StatusCode};
use key_policy::PolicyError;
use serde_json::json;

use crate::wire;

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    kind: Kind,
    message: Option<String>,
}

/// The names of AWS's common errors and of KMS's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    AccessDenied,
    IncompleteSignature,
    IncorrectKey,
    InternalFailure,
    InvalidCiphertext,
    InvalidKeyUsage,
    InvalidSignature,
    LimitExceeded,
    MalformedPolicyDocument,
    MissingAuthenticationToken,
    NotFound,
    Serialization,
    UnknownOperation,
    UnrecognizedClient,
    UnsupportedOperation,
    Validation,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::AccessDenied => "AccessDeniedException",
            Self::IncompleteSignature => "IncompleteSignatureException",
            Self::IncorrectKey => "IncorrectKeyException",
            Self::InternalFailure => "KMSInternalException",
            Self::InvalidCiphertext => "InvalidCiphertextException",
            Self::InvalidKeyUsage => "InvalidKeyUsageException",
            Self::InvalidSignature => "InvalidSignatureException",
            Self::LimitExceeded => "LimitExceededException",
            Self::MalformedPolicyDocument => "MalformedPolicyDocumentException",
            Self::MissingAuthenticationToken => "MissingAuthenticationTokenException",
            Self::NotFound => "NotFoundException",
            Self::Serialization => "SerializationException",
            Self::UnknownOperation => "UnknownOperationException",
            Self::UnrecognizedClient => "UnrecognizedClientException",
            Self::UnsupportedOperation => "UnsupportedOperationException",
            Self::Validation => "ValidationException",
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Self::InternalFailure => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

impl Refusal {
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: Some(message.into()),
        }
    }

    /// KMS says no more of some errors than their name.
    pub(crate) fn bare(kind: Kind) -> Self {
        Self {
            kind,
            message: None,
        }
    }

    /// A member whose value breaks a constraint of the service's model.
    pub(crate) fn constraint(member: &str, constraint: &str) -> Self {
        let message = format!(
            "1 validation error detected: Value at '{member}' failed to satisfy constraint: Member must {constraint}"
        );
        Self::new(Kind::Validation, message)
    }

    /// A key policy that cannot be read.
    pub(crate) fn malformed(error: &PolicyError) -> Self {
        Self::new(Kind::MalformedPolicyDocument, error.to_string())
    }

    pub(crate) fn response(&self) -> Response<Bytes> {
        let name = self.kind.name();
        let body = match (&self.message, self.kind) {
            (None, _) => json!({ "__type": name }),
            // Written by IAM, which capitalises.
            (Some(message), Kind::AccessDenied) => json!({ "__type": name, "Message": message }),
            (Some(message), _) => json!({ "__type": name, "message": message }),
        };
        wire::response(self.kind.status(), &body)
    }
}
