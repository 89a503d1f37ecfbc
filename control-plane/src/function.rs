//! What every function has: logs, clients, and failures that workflows can match.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_sdk_dynamodb::error::DisplayErrorContext;
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use lambda_runtime::{Diagnostic, LambdaEvent, service_fn};
use serde_json::Value;
use tracing::error;
use tracing_subscriber::EnvFilter;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long an attempt at a call may take.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a call is tried.
const ATTEMPTS: u32 = 4;

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

impl From<Failure> for Diagnostic {
    fn from(failure: Failure) -> Self {
        Self {
            error_type: failure.kind,
            error_message: failure.message,
        }
    }
}

/// A variable that the function cannot do without.
pub fn variable(name: &str) -> Result<String, Failure> {
    optional(name).ok_or_else(|| Failure::unset(name))
}

/// A variable that may be missing or empty.
pub fn optional(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Region, credentials and endpoint from the environment. Nothing is sent.
pub async fn sdk_config() -> SdkConfig {
    let http = Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
        .build_https();
    aws_config::defaults(BehaviorVersion::latest())
        .http_client(http)
        .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS))
        .timeout_config(
            TimeoutConfig::builder()
                .connect_timeout(CONNECT_TIMEOUT)
                .operation_attempt_timeout(ATTEMPT_TIMEOUT)
                .build(),
        )
        .load()
        .await
}

/// Logs as JSON lines on standard output, from `LOG_LEVEL` up.
pub fn log() {
    let level = optional("LOG_LEVEL").unwrap_or_else(|| "info".to_owned());
    let filter =
        EnvFilter::try_new(level.to_ascii_lowercase()).unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_target(false)
        .with_env_filter(filter)
        .init();
}

/// Runs a function until Lambda ends it.
pub async fn serve<H, F>(handler: H) -> Result<(), lambda_runtime::Error>
where
    H: Fn(Value) -> F,
    F: Future<Output = Result<Value, Failure>>,
{
    lambda_runtime::run(service_fn(|event: LambdaEvent<Value>| {
        let answer = Box::pin(handler(event.payload));
        async {
            answer.await.inspect_err(|failure| {
                error!(error_type = failure.kind, error = failure.message, "failed");
            })
        }
    }))
    .await
}

/// CloudWatch's namespace for the metrics of the functions.
const METRICS: &str = "Enclaves";

/// Writes counts as a line in CloudWatch's embedded metric format, by environment
/// (`ENVIRONMENT`, or `default`).
#[expect(clippy::print_stdout, reason = "the format's own way")]
pub fn emit_metrics(counts: &[(&str, u64)]) {
    let environment = optional("ENVIRONMENT").unwrap_or_else(|| "default".to_owned());
    println!(
        "{}",
        metrics_line(&environment, counts, time::OffsetDateTime::now_utc())
    );
}

fn metrics_line(environment: &str, counts: &[(&str, u64)], now: time::OffsetDateTime) -> Value {
    let definitions: Vec<_> = counts
        .iter()
        .map(|(name, _)| serde_json::json!({ "Name": name, "Unit": "Count" }))
        .collect();
    let mut line = serde_json::json!({
        "_aws": {
            "Timestamp": now.unix_timestamp() * 1000,
            "CloudWatchMetrics": [{
                "Namespace": METRICS,
                "Dimensions": [["Environment"]],
                "Metrics": definitions,
            }],
        },
        "Environment": environment,
    });
    if let Some(line) = line.as_object_mut() {
        for (name, count) in counts {
            line.insert((*name).to_owned(), (*count).into());
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_metrics_defines_what_it_counts() {
        let line = metrics_line(
            "dev",
            &[("EnclavesStuck", 2)],
            time::OffsetDateTime::UNIX_EPOCH,
        );
        assert_eq!(line["EnclavesStuck"], 2);
        assert_eq!(
            line.pointer("/_aws/CloudWatchMetrics/0/Metrics/0/Name")
                .unwrap(),
            "EnclavesStuck"
        );
        assert_eq!(line["Environment"], "dev");
    }
}
