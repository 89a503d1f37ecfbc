//! Calls that are made with SDK crates, their errors in the words of all others.

use std::error::Error as StdError;

use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use aws_types::request_id::RequestId;

use crate::endpoint::Service;
use crate::error::{Error, one_line};
use crate::http_client::Unreachable;
use crate::response::{chain, find};

impl Error {
    /// Why a call with an SDK crate has failed. `operation` is its name in AWS's
    /// reference, for messages.
    pub fn of_call<E>(
        service: Service,
        operation: &'static str,
        error: &SdkError<E, HttpResponse>,
    ) -> Self
    where
        E: StdError + ProvideErrorMetadata + 'static,
    {
        if let Some(cause) = find::<CredentialsError>(error) {
            return Self::Credentials {
                service,
                operation,
                reason: chain(cause),
            };
        }
        let unreachable = |timed_out| {
            let place = find::<Unreachable>(error);
            Self::Unreachable {
                service,
                operation,
                host: place.map(|place| place.host.clone()),
                attempts: 1,
                timed_out,
                reason: place.map_or_else(|| causes(error), |place| chain(&place.cause)),
            }
        };
        match error {
            SdkError::TimeoutError(_) => unreachable(true),
            SdkError::DispatchFailure(failure) => unreachable(failure.is_timeout()),
            SdkError::ServiceError(refusal) if refusal.raw().status().is_success() => {
                Self::Malformed {
                    service,
                    operation,
                    reason: causes(error),
                }
            }
            SdkError::ServiceError(refusal) => {
                let metadata = refusal.err().meta();
                Self::Refused {
                    service,
                    operation,
                    status: refusal.raw().status().as_u16(),
                    code: one_line(metadata.code().unwrap_or_default()),
                    message: one_line(metadata.message().unwrap_or_default()),
                    request_id: error.request_id().map(one_line),
                    retry_after: None,
                }
            }
            SdkError::ResponseError(_) => Self::Broken {
                service,
                operation,
                reason: causes(error),
            },
            _ => Self::Request {
                service,
                operation,
                reason: causes(error),
            },
        }
    }
}

/// The causes of an error in one line, without its own words: which kind it is of is
/// said already.
fn causes(error: &(dyn StdError + 'static)) -> String {
    chain(error.source().unwrap_or(error))
}
