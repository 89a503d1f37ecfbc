//! What a workflow failed with, in words.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::update::cut;

/// Characters of a message before DynamoDB's and SNS's own limits matter.
pub const MAX_MESSAGE: usize = 900;

/// An error as Step Functions catches it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Caught {
    /// Its name.
    #[serde(rename = "Error")]
    pub error: String,
    /// Its cause: a text, or JSON in one.
    #[serde(rename = "Cause", default)]
    pub cause: String,
}

/// A failure in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// For programs: the item's `error_type`.
    pub kind: String,
    /// For people: the item's `error_message`.
    pub message: String,
}

impl Caught {
    /// What it means, in words.
    pub fn explain(&self) -> Explanation {
        let cause: Value = serde_json::from_str(&self.cause).unwrap_or(Value::Null);
        let field = |name: &str| cause.get(name).and_then(Value::as_str);
        // A Lambda error, or a service's.
        if let Some(message) = field("errorMessage") {
            let kind = field("errorType").unwrap_or(&self.error);
            return explanation(kind, message);
        }
        if let Some(text) = stopped_task(&cause) {
            return explanation("RunnerStopped", &text);
        }
        if let Some(message) = field("message").or_else(|| field("Message")) {
            return explanation(&self.error, message);
        }
        let text = self.cause.trim();
        match self.error.as_str() {
            "States.Timeout" if text.is_empty() => explanation(
                "TimedOut",
                "a step did not end within its time limit: the execution's history says which",
            ),
            "States.HeartbeatTimeout" if text.is_empty() => explanation(
                "RunnerLost",
                "the Terraform task sent no heartbeat: it never started, or it was killed",
            ),
            "" => explanation("Unknown", "the workflow failed and gave no reason"),
            kind if text.is_empty() => explanation(
                kind,
                &format!("{kind}, without a cause: the execution's history says where"),
            ),
            kind => explanation(kind, text),
        }
    }
}

fn explanation(kind: &str, message: &str) -> Explanation {
    Explanation {
        kind: kind.rsplit("::").next().unwrap_or(kind).to_owned(),
        message: cut(message.trim(), MAX_MESSAGE),
    }
}

/// What ECS says of a task that ended, or did not start.
fn stopped_task(cause: &Value) -> Option<String> {
    let failures = cause.get("Failures").and_then(Value::as_array);
    if let Some(reason) = failures
        .and_then(|list| list.first())
        .and_then(|failure| failure.get("Reason"))
        .and_then(Value::as_str)
    {
        return Some(format!("ECS could not place the Terraform task: {reason}"));
    }
    let containers = cause.get("Containers").and_then(Value::as_array)?;
    let reason = cause.get("StoppedReason").and_then(Value::as_str);
    let container = containers.first();
    let detail = |name| container.and_then(|container| container.get(name));
    let why = detail("Reason").and_then(Value::as_str).or(reason);
    let code = detail("ExitCode").and_then(Value::as_i64);
    Some(match (why, code) {
        (Some(why), Some(code)) => format!("the Terraform task ended with code {code}: {why}"),
        (Some(why), None) => format!("the Terraform task did not start: {why}"),
        (None, Some(code)) => format!("the Terraform task ended with code {code}"),
        (None, None) => "the Terraform task ended, and ECS does not say why".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn caught(error: &str, cause: &str) -> Caught {
        Caught {
            error: error.to_owned(),
            cause: cause.to_owned(),
        }
    }

    #[test]
    fn causes_are_unpacked() {
        for (caught, kind, message) in [
            (
                caught(
                    "ValidationFailed",
                    r#"{"errorType":"ValidationFailed","errorMessage":"the request has 1 problem: x"}"#,
                ),
                "ValidationFailed",
                "the request has 1 problem: x",
            ),
            (
                caught("TerraformFailed", "apply: no capacity\n"),
                "TerraformFailed",
                "apply: no capacity",
            ),
            (
                caught("States.Timeout", ""),
                "TimedOut",
                "a step did not end within its time limit: the execution's history says which",
            ),
            (
                caught(
                    "States.TaskFailed",
                    r#"{"StoppedReason":"Task failed to start","Containers":[{"Reason":"CannotPullContainerError: not found"}]}"#,
                ),
                "RunnerStopped",
                "the Terraform task did not start: CannotPullContainerError: not found",
            ),
            (
                caught(
                    "States.TaskFailed",
                    r#"{"Containers":[{"ExitCode":137}],"StoppedReason":"OutOfMemory"}"#,
                ),
                "RunnerStopped",
                "the Terraform task ended with code 137: OutOfMemory",
            ),
            (
                caught(
                    "ECS.x",
                    r#"{"Failures":[{"Reason":"RESOURCE:MEMORY"}],"Tasks":[]}"#,
                ),
                "RunnerStopped",
                "ECS could not place the Terraform task: RESOURCE:MEMORY",
            ),
            (
                caught("Lambda.Unknown", ""),
                "Lambda.Unknown",
                "Lambda.Unknown, without a cause: the execution's history says where",
            ),
        ] {
            let expected = Explanation {
                kind: kind.to_owned(),
                message: message.to_owned(),
            };
            assert_eq!(caught.explain(), expected);
        }
    }

    proptest! {
        #[test]
        fn every_failure_has_a_message(error in "\\PC{0,40}", cause in "\\PC{0,2000}") {
            let explanation = caught(&error, &cause).explain();
            prop_assert!(!explanation.message.is_empty());
            prop_assert!(explanation.message.chars().count() <= MAX_MESSAGE + 1);
        }
    }
}
