//! Calls, counted by operation and outcome: names from closed sets, so that nothing of
//! what a workload or KMS has written leaves the enclave with them.

use std::sync::atomic::{AtomicU64, Ordering};

use hyper::StatusCode;
use link::control::FromInit;
use link::kms::{Calls, Operation, Outcome};

use super::error::KmsError;
use crate::aws::{Answer, CallError, Load};

/// Calls since the boot.
#[derive(Debug, Default)]
pub(super) struct Counts([[AtomicU64; Outcome::ALL.len()]; Operation::ALL.len()]);

/// What the agent has been told on one connection.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    calls: Vec<Calls>,
    load: Load,
}

impl Counts {
    /// Counts a call that has ended.
    pub(super) fn count(&self, operation: &str, outcome: Outcome) {
        let operation = Operation::named(operation);
        let known = Operation::ALL.into_iter().zip(&self.0);
        let of_operation = known.filter(|(known, _)| *known == operation);
        for (_, outcomes) in of_operation {
            let counters = Outcome::ALL.into_iter().zip(outcomes);
            for (_, counter) in counters.filter(|(known, _)| *known == outcome) {
                counter.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// What the agent is to be told, if that is more than it has been.
    pub(super) fn news(&self, load: Load, told: &mut Told) -> Option<FromInit> {
        let mut calls = Vec::new();
        for (operation, outcomes) in Operation::ALL.into_iter().zip(&self.0) {
            for (outcome, counter) in Outcome::ALL.into_iter().zip(outcomes) {
                let count = counter.load(Ordering::Relaxed);
                if count > 0 {
                    calls.push(Calls {
                        operation,
                        outcome,
                        count,
                    });
                }
            }
        }
        let now = Told { calls, load };
        if now == *told {
            return None;
        }
        *told = now;
        Some(FromInit::Kms {
            calls: told.calls.clone(),
            open: load.open,
            waiting: load.waiting,
        })
    }
}

/// What an answer of KMS's, of whatever status, comes to.
pub(super) fn of_answer(answer: &Answer) -> Outcome {
    if answer.status == StatusCode::OK {
        return Outcome::Answered;
    }
    match answer.refusal().name.as_deref().unwrap_or_default() {
        "AccessDeniedException" => Outcome::AccessDenied,
        "ThrottlingException" | "TooManyRequestsException" | "RequestLimitExceeded" => {
            Outcome::Throttled
        }
        "ExpiredTokenException"
        | "IncompleteSignature"
        | "InvalidClientTokenId"
        | "InvalidSignatureException"
        | "MissingAuthenticationTokenException"
        | "RequestExpired"
        | "UnrecognizedClientException" => Outcome::CredentialsRefused,
        "InvalidCiphertextException" | "IncorrectKeyException" => Outcome::CiphertextRefused,
        _ if answer.status == StatusCode::TOO_MANY_REQUESTS => Outcome::Throttled,
        _ if answer.status.is_server_error() => Outcome::Failed,
        _ => Outcome::Refused,
    }
}

/// What a call that released nothing comes to.
pub(super) fn of_error(error: &KmsError) -> Outcome {
    match error {
        KmsError::Refused(answer) => of_answer(answer),
        KmsError::Call(error) => match error {
            CallError::NoCredentials(_) => Outcome::NoCredentials,
            CallError::Busy(_) => Outcome::Busy,
            CallError::Unreachable { .. }
            | CallError::Tls { .. }
            | CallError::Broken { .. }
            | CallError::TimedOut { .. }
            | CallError::TooLarge { .. } => Outcome::Unreachable,
            CallError::Request(_) => Outcome::NotMade,
        },
        KmsError::UnknownOperation
        | KmsError::Request(_)
        | KmsError::Caller { .. }
        | KmsError::Document(_) => Outcome::NotMade,
        KmsError::InClear | KmsError::Unopened | KmsError::OtherKey { .. } => Outcome::NotOurs,
    }
}

#[cfg(test)]
mod tests {
    use hyper::HeaderMap;

    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: HeaderMap::new(),
            body: body.as_bytes().to_vec().into(),
        }
    }

    #[test]
    fn kms_outcomes_are_told_apart_by_kmss_names() {
        let cases = [
            (200, "{}", Outcome::Answered),
            (
                400,
                r#"{"__type":"AccessDeniedException"}"#,
                Outcome::AccessDenied,
            ),
            (
                400,
                r#"{"__type":"com.amazonaws.kms#ThrottlingException"}"#,
                Outcome::Throttled,
            ),
            (429, "<html>", Outcome::Throttled),
            (
                400,
                r#"{"__type":"ExpiredTokenException"}"#,
                Outcome::CredentialsRefused,
            ),
            (
                400,
                r#"{"__type":"InvalidCiphertextException"}"#,
                Outcome::CiphertextRefused,
            ),
            (400, r#"{"__type":"hush"}"#, Outcome::Refused),
            (503, "", Outcome::Failed),
        ];
        for (status, body, expected) in cases {
            assert_eq!(
                of_answer(&answer(status, body)),
                expected,
                "{status} {body}"
            );
        }
    }

    #[test]
    fn kms_calls_are_counted_by_operations_of_a_closed_set() {
        let counts = Counts::default();
        let mut told = Told::default();
        assert_eq!(counts.news(Load::default(), &mut told), None);
        counts.count("Decrypt", Outcome::Answered);
        counts.count("hush", Outcome::Refused);
        counts.count("ListKeys", Outcome::Refused);
        let load = Load {
            open: 2,
            waiting: 1,
        };
        let Some(FromInit::Kms {
            calls,
            open: 2,
            waiting: 1,
        }) = counts.news(load, &mut told)
        else {
            panic!("nothing is told");
        };
        let of = |operation, outcome, count| Calls {
            operation,
            outcome,
            count,
        };
        assert_eq!(
            calls,
            [
                of(Operation::Decrypt, Outcome::Answered, 1),
                of(Operation::Other, Outcome::Refused, 2),
            ]
        );
        assert_eq!(counts.news(load, &mut told), None);
        assert!(counts.news(Load::default(), &mut told).is_some());
    }
}
