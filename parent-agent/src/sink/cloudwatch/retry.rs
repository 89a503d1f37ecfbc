//! The service's errors, by what helps against them.

use std::error::Error;

use aws_sdk_cloudwatchlogs::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};

use crate::sink::{ErrorClass, SendError};

/// Sorts an error of a call.
pub(super) fn classify<E, R>(call: &str, error: &SdkError<E, R>) -> SendError
where
    E: ProvideErrorMetadata + Error + 'static,
    R: std::fmt::Debug + 'static,
{
    let class = match error {
        SdkError::TimeoutError(_) => ErrorClass::Timeout,
        SdkError::DispatchFailure(failure) if failure.is_timeout() => ErrorClass::Timeout,
        SdkError::ServiceError(context) => {
            return service_error(call, context.err().code(), context.err().message());
        }
        // Credentials are loaded while a request is made.
        _ if is_credentials(error) => ErrorClass::Credentials,
        SdkError::DispatchFailure(_) => ErrorClass::Connection,
        _ => ErrorClass::Server,
    };
    SendError::new(class, format!("{call}: {}", DisplayErrorContext(error)))
}

/// Sorts what the service has answered. A name may come with its namespace.
fn service_error(call: &str, code: Option<&str>, message: Option<&str>) -> SendError {
    let code = code.unwrap_or("no error code");
    let name = code.rsplit('#').next().unwrap_or(code);
    let class = match name {
        "ThrottlingException"
        | "Throttling"
        | "TooManyRequestsException"
        | "RequestLimitExceeded"
        | "LimitExceededException" => ErrorClass::Throttled,
        "ExpiredTokenException"
        | "ExpiredToken"
        | "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "RequestExpired"
        | "RequestTimeTooSkewed"
        | "MissingAuthenticationTokenException"
        | "IncompleteSignatureException" => ErrorClass::Credentials,
        "AccessDeniedException" | "AccessDenied" | "NotAuthorized" | "OptInRequired" => {
            ErrorClass::Denied
        }
        "ResourceNotFoundException" => ErrorClass::NotFound,
        "InvalidParameterException" | "ValidationException" | "SerializationException" => {
            ErrorClass::Refused
        }
        "RequestTimeout" | "RequestTimeoutException" => ErrorClass::Timeout,
        _ => ErrorClass::Server,
    };
    let message = message.unwrap_or("no message");
    SendError::new(class, format!("{call}: {name}: {message}"))
}

fn is_credentials(error: &(dyn Error + 'static)) -> bool {
    let mut source = Some(error);
    while let Some(error) = source {
        if error.is::<aws_credential_types::provider::error::CredentialsError>() {
            return true;
        }
        source = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_sorted_by_what_helps() {
        for (code, class) in [
            ("ThrottlingException", ErrorClass::Throttled),
            (
                "com.amazonaws.logs#ThrottlingException",
                ErrorClass::Throttled,
            ),
            ("ExpiredTokenException", ErrorClass::Credentials),
            ("AccessDeniedException", ErrorClass::Denied),
            ("ResourceNotFoundException", ErrorClass::NotFound),
            ("InvalidParameterException", ErrorClass::Refused),
            ("ServiceUnavailableException", ErrorClass::Server),
            ("SomethingNew", ErrorClass::Server),
        ] {
            let error = service_error("PutLogEvents", Some(code), None);
            assert_eq!(error.class, class, "{code}");
        }
    }
}
