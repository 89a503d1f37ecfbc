//! Failures that workflows can match.

use std::fmt;

use aws_sdk_dynamodb::error::DisplayErrorContext;

/// Why a function could not do its work. Workflows match on the kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The Lambda error's `errorType`.
    pub kind: String,
    /// The Lambda error's `errorMessage`, for people.
    pub message: String,
}

impl Failure {
    /// A failure of this kind.
    pub fn new(kind: &str, message: impl Into<String>) -> Self {
        Self {
            kind: kind.to_owned(),
            message: message.into(),
        }
    }

    /// The input is not what the function takes.
    pub fn input(error: impl fmt::Display) -> Self {
        Self::new(
            "InvalidInput",
            format!("the function's input cannot be used: {error}"),
        )
    }

    /// A variable of the environment is missing.
    pub fn unset(variable: &str) -> Self {
        Self::new(
            "NotConfigured",
            format!("{variable} is not set: add it to the function's environment"),
        )
    }

    /// What should not happen.
    pub fn internal(error: impl fmt::Display) -> Self {
        Self::new("Internal", error.to_string())
    }

    /// A call to a service failed, after its retries.
    pub fn of_call<E>(call: &str, on: &str, error: &E) -> Self
    where
        E: std::error::Error,
    {
        Self::new(
            "ServiceUnavailable",
            format!("{call} on {on}: {}", DisplayErrorContext(error)),
        )
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.message)
    }
}

impl std::error::Error for Failure {}
