//! What every function has: its loop, and metrics.

use std::future::Future;

use control_plane_model::Failure;
use control_plane_model::environment::optional;
use lambda_runtime::{Diagnostic, LambdaEvent, service_fn};
use serde_json::Value;
use tracing::error;

/// Runs a function until Lambda ends it.
pub async fn serve<H, F>(handler: H) -> Result<(), lambda_runtime::Error>
where
    H: Fn(Value) -> F,
    F: Future<Output = Result<Value, Failure>>,
{
    lambda_runtime::run(service_fn(|event: LambdaEvent<Value>| {
        let answer = Box::pin(handler(event.payload));
        async {
            answer.await.map_err(|Failure { kind, message }| {
                error!(error_type = kind, error = message, "failed");
                Diagnostic {
                    error_type: kind,
                    error_message: message,
                }
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
