//! The service's errors, by what helps against them.

use aws_request::Error;

use crate::{ErrorClass, SendError};

/// Sorts an error of a call.
pub(super) fn classify(error: &Error) -> SendError {
    let class = match error {
        Error::Credentials { .. } => ErrorClass::Credentials,
        Error::Unreachable { .. } if error.is_timeout() => ErrorClass::Timeout,
        Error::Unreachable { .. } => ErrorClass::Connection,
        Error::Refused { code, .. } => refusal(code),
        _ => ErrorClass::Server,
    };
    SendError::new(class, error.to_string())
}

/// Sorts what the service has answered.
fn refusal(code: &str) -> ErrorClass {
    match code {
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
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_sorted_by_what_helps() {
        for (code, class) in [
            ("ThrottlingException", ErrorClass::Throttled),
            ("ExpiredTokenException", ErrorClass::Credentials),
            ("AccessDeniedException", ErrorClass::Denied),
            ("ResourceNotFoundException", ErrorClass::NotFound),
            ("InvalidParameterException", ErrorClass::Refused),
            ("ServiceUnavailableException", ErrorClass::Server),
            ("SomethingNew", ErrorClass::Server),
        ] {
            assert_eq!(refusal(code), class, "{code}");
        }
    }
}
