//! Why a secret cannot be had: in the words of whoever refused, whether another attempt
//! may help, and what to do.

use std::time::Duration;

use thiserror::Error;

use crate::aws::{Answer, CallError};
use crate::kms::KmsError;

/// Why a secret cannot be had. No message holds anything secret.
#[derive(Debug, Error)]
pub(super) enum Failure {
    /// KMS does not decrypt it, or cannot be asked.
    #[error(transparent)]
    Kms(#[from] KmsError),
    /// What has the ciphertext cannot be asked.
    #[error("{0} cannot be read: {1}")]
    Fetch(String, CallError),
    /// It says no.
    #[error("{place} cannot be read: {}", answer.refusal())]
    Refused {
        /// What has the ciphertext.
        place: String,
        answer: Box<Answer>,
    },
    /// It says something else.
    #[error("{0} cannot be read: the service's answer has no value that could be a ciphertext")]
    Answer(String),
    /// The parameter or secret of that name in another account.
    #[error("{0} is {1}, in another account than the manifest means")]
    OtherAccount(String, String),
    /// What is stored is not KMS's.
    #[error("{0} holds no ciphertext of KMS's: {1}")]
    Stored(String, String),
    /// The region's service has no host name.
    #[error("{0} cannot be read: the service has no host in the region of [kms]")]
    NoHost(String),
    /// Larger than any of KMS's, or than a variable may be.
    #[error("its value has {0} bytes, more than the {1} that it may have")]
    TooLarge(usize, usize),
    /// Not for an environment.
    #[error("its value has a zero byte, which no environment variable can have")]
    ZeroByte,
    /// The file cannot be written.
    #[error("{0}")]
    Write(String),
    /// It was not even refused.
    #[error("it could not be opened within {} s", .0.as_secs())]
    TimedOut(Duration),
}

impl Failure {
    /// Whether another attempt may help.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Kms(error) => error.is_transient(),
            Self::Fetch(_, error) => error.is_transient(),
            Self::Refused { answer, .. } => answer.is_transient(),
            Self::TimedOut(_) => true,
            Self::Answer(_)
            | Self::OtherAccount(..)
            | Self::Stored(..)
            | Self::NoHost(_)
            | Self::TooLarge(..)
            | Self::ZeroByte
            | Self::Write(_) => false,
        }
    }

    /// What failed, and what to do.
    pub(super) fn explain(&self) -> String {
        match self.advice() {
            Some(advice) => format!("{self}; {advice}"),
            None => self.to_string(),
        }
    }

    /// What to do, where the message does not say it.
    fn advice(&self) -> Option<&'static str> {
        match self {
            Self::Kms(KmsError::Refused(answer)) => {
                Some(match answer.refusal().name.as_deref().unwrap_or_default() {
                    "AccessDeniedException" => {
                        "have the key's policy allow kms:Decrypt to the instance's role and to this image's measurements, as `image-builder kms-policy` writes it (in debug mode the measurements are zero)"
                    }
                    "InvalidCiphertextException" => {
                        "encrypt the secret again, with the encryption_context that the manifest names"
                    }
                    "IncorrectKeyException" => {
                        "the secret's key_id is not the key that it was encrypted with: name that one, or encrypt it again"
                    }
                    "NotFoundException" => "is [kms] in the key's region, and the key there?",
                    "DisabledException" | "KMSInvalidStateException" => {
                        "enable the key, or cancel its deletion"
                    }
                    "InvalidSignatureException" | "UnrecognizedClientException" => {
                        "are the parent's role and the enclave's clock right?"
                    }
                    "ThrottlingException" => "ask for a higher quota, or start fewer at a time",
                    _ => "look the error up in the documentation of KMS's Decrypt",
                })
            }
            Self::Refused { .. } => Some(
                "does it exist in the region of [kms], and may the instance's role read it (ssm:GetParameter, secretsmanager:GetSecretValue, s3:GetObject)?",
            ),
            Self::Answer(_) | Self::Stored(..) => {
                Some("store the CiphertextBlob that `aws kms encrypt` prints")
            }
            Self::OtherAccount(..) => Some(
                "are the credentials that the agent hands in those of the right account? If another account than the key's has it, name it by its ARN",
            ),
            Self::NoHost(_) => Some("name an existing region in [kms]"),
            Self::TooLarge(..) | Self::ZeroByte => {
                Some("deliver it as `file`, which may have 32768 bytes, or 4096 if KMS decrypts it")
            }
            Self::TimedOut(_) => Some("is the parent's agent well?"),
            Self::Write(_) => Some("this should not happen: report it"),
            Self::Kms(_) | Self::Fetch(..) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use hyper::{HeaderMap, StatusCode};

    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: HeaderMap::new(),
            body: body.as_bytes().to_vec().into(),
        }
    }

    fn by_kms(name: &str) -> Failure {
        let body = format!(r#"{{"__type":"{name}","message":"its words"}}"#);
        Failure::Kms(KmsError::Refused(Box::new(answer(400, &body))))
    }

    fn by_ssm() -> Failure {
        Failure::Refused {
            place: "the parameter /a of Systems Manager".to_owned(),
            answer: Box::new(answer(
                400,
                r#"{"__type":"ParameterNotFound","message":"no"}"#,
            )),
        }
    }

    #[test]
    fn secrets_are_tried_again_only_where_that_may_help() {
        let host = || "kms.test".to_owned();
        let unreachable = CallError::Unreachable {
            endpoint: host(),
            reason: String::new(),
        };
        let tls = CallError::Tls {
            endpoint: host(),
            reason: String::new(),
        };
        for (failure, is_transient) in [
            (by_kms("ThrottlingException"), true),
            (by_kms("com.amazonaws.kms#KMSInternalException"), true),
            (by_kms("AccessDeniedException"), false),
            (by_kms("InvalidCiphertextException"), false),
            (by_kms("IncorrectKeyException"), false),
            (
                Failure::Kms(KmsError::Refused(Box::new(answer(503, "<html>")))),
                true,
            ),
            (
                Failure::Kms(KmsError::Refused(Box::new(answer(429, "{}")))),
                true,
            ),
            (
                Failure::Kms(KmsError::Refused(Box::new(answer(403, "<html>")))),
                false,
            ),
            (Failure::Kms(KmsError::Call(unreachable.clone())), true),
            (Failure::Fetch(host(), unreachable), true),
            (Failure::Kms(KmsError::Call(tls)), false),
            (Failure::Kms(KmsError::InClear), false),
            (by_ssm(), false),
            (Failure::ZeroByte, false),
        ] {
            assert_eq!(failure.is_transient(), is_transient, "{failure}");
        }
    }

    #[test]
    fn secrets_failures_have_the_services_words_and_what_to_do() {
        for (failure, words) in [
            (
                by_kms("AccessDeniedException"),
                [
                    "AccessDeniedException: its words; ",
                    "image-builder kms-policy",
                ],
            ),
            (
                by_kms("InvalidCiphertextException"),
                [
                    "InvalidCiphertextException: its words; ",
                    "encryption_context",
                ],
            ),
            (
                by_ssm(),
                [
                    "the parameter /a of Systems Manager cannot be read: ParameterNotFound: no; ",
                    "may the instance's role read it",
                ],
            ),
        ] {
            let text = failure.explain();
            for word in words {
                assert!(text.contains(word), "{text}");
            }
            assert!(!text.contains('\n'), "{text}");
        }
    }
}
