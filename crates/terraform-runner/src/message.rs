//! Terraform's machine-readable UI: one JSON object a line.
//!
//! <https://developer.hashicorp.com/terraform/internals/machine-readable-ui>
//! describes it. New types of messages appear with new versions of Terraform, so
//! what is not known is kept as text.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Longest text of a message that is kept, in characters.
const MAX_TEXT: usize = 4096;

/// Outputs that are strings and not sensitive.
pub type Outputs = BTreeMap<String, String>;

/// How many resources are changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Changes {
    /// Created.
    pub add: u64,
    /// Updated in place.
    pub change: u64,
    /// Destroyed.
    pub remove: u64,
}

/// A line of Terraform's, as far as it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Message {
    /// Work on a resource begins.
    Started { address: String, action: String },
    /// Work on a resource goes on.
    Continues {
        address: String,
        action: String,
        seconds: u64,
    },
    /// Work on a resource is done.
    Done {
        address: String,
        action: String,
        seconds: u64,
    },
    /// Work on a resource failed.
    Failed { address: String, action: String },
    /// What is planned, or what was done.
    Changes { changes: Changes, text: String },
    /// The outputs; the values of sensitive ones are left out.
    Outputs(Outputs),
    /// An error or a warning.
    Diagnostic(Diagnostic),
    /// Any other message, by its text.
    Other { level: Level, text: String },
}

/// How serious a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    #[default]
    Info,
    Warn,
    Error,
    #[serde(other)]
    Debug,
}

/// An error or a warning. Its source snippet is left out, since that shows values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// Whether it is an error.
    #[serde(skip)]
    pub error: bool,
    /// One line.
    pub summary: String,
    /// The rest, bounded.
    pub detail: String,
    /// The resource, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

#[derive(Deserialize)]
struct Line {
    #[serde(rename = "@level", default)]
    level: Level,
    #[serde(rename = "@message", default)]
    message: String,
    #[serde(rename = "type", default)]
    kind: String,
    hook: Option<Hook>,
    changes: Option<Changes>,
    outputs: Option<BTreeMap<String, Output>>,
    diagnostic: Option<RawDiagnostic>,
}

#[derive(Deserialize)]
struct Hook {
    resource: Resource,
    #[serde(default)]
    action: String,
    #[serde(default)]
    elapsed_seconds: f64,
}

#[derive(Deserialize)]
struct Resource {
    addr: String,
}

#[derive(Deserialize)]
struct Output {
    #[serde(default)]
    sensitive: bool,
    #[serde(default)]
    value: serde_json::Value,
}

#[derive(Deserialize)]
struct RawDiagnostic {
    severity: String,
    summary: String,
    #[serde(default)]
    detail: String,
    address: Option<String>,
}

impl Message {
    /// Reads a line; one that is not such an object is text.
    pub(super) fn parse(line: &str) -> Self {
        let Ok(line) = serde_json::from_str::<Line>(line) else {
            return Self::Other {
                level: Level::Info,
                text: cut(line),
            };
        };
        match (line.kind.as_str(), line.hook) {
            ("apply_start", Some(hook)) => Self::Started {
                address: cut(&hook.resource.addr),
                action: cut(&hook.action),
            },
            ("apply_progress", Some(hook)) => Self::Continues {
                seconds: whole(hook.elapsed_seconds),
                address: cut(&hook.resource.addr),
                action: cut(&hook.action),
            },
            ("apply_complete", Some(hook)) => Self::Done {
                seconds: whole(hook.elapsed_seconds),
                address: cut(&hook.resource.addr),
                action: cut(&hook.action),
            },
            ("apply_errored", Some(hook)) => Self::Failed {
                address: cut(&hook.resource.addr),
                action: cut(&hook.action),
            },
            ("change_summary", _) => Self::Changes {
                changes: line.changes.unwrap_or_default(),
                text: cut(&line.message),
            },
            ("outputs", _) => Self::Outputs(
                line.outputs
                    .unwrap_or_default()
                    .into_iter()
                    .filter_map(|(name, output)| match output.value {
                        serde_json::Value::String(value) if !output.sensitive => {
                            Some((name, value))
                        }
                        _ => None,
                    })
                    .collect(),
            ),
            ("diagnostic", _) => match line.diagnostic {
                Some(diagnostic) => Self::Diagnostic(Diagnostic {
                    error: diagnostic.severity == "error",
                    summary: cut(&diagnostic.summary),
                    detail: cut(&diagnostic.detail),
                    address: diagnostic.address.as_deref().map(cut),
                }),
                None => Self::Other {
                    level: line.level,
                    text: cut(&line.message),
                },
            },
            _ => Self::Other {
                level: line.level,
                text: cut(&line.message),
            },
        }
    }
}

fn cut(text: &str) -> String {
    text.chars().take(MAX_TEXT).collect()
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float that is out of range becomes the nearest number"
)]
fn whole(seconds: f64) -> u64 {
    seconds.round() as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn work_on_a_resource_is_read() {
        let line = r#"{"@level":"info","@message":"aws_instance.enclave: Creation complete after 12s [id=i-1]","@module":"terraform.ui","@timestamp":"2026-11-24T14:00:00Z","hook":{"resource":{"addr":"aws_instance.enclave","module":"","resource":"aws_instance.enclave","implied_provider":"aws","resource_type":"aws_instance","resource_name":"enclave","resource_key":null},"action":"create","id_key":"id","id_value":"i-1","elapsed_seconds":12},"type":"apply_complete"}"#;
        assert_eq!(
            Message::parse(line),
            Message::Done {
                address: "aws_instance.enclave".to_owned(),
                action: "create".to_owned(),
                seconds: 12
            }
        );
    }

    #[test]
    fn a_summary_is_read() {
        let line = r#"{"@level":"info","@message":"Plan: 4 to add, 0 to change, 1 to destroy.","changes":{"add":4,"change":0,"import":0,"remove":1,"operation":"plan"},"type":"change_summary"}"#;
        let Message::Changes { changes, .. } = Message::parse(line) else {
            panic!("not a summary");
        };
        assert_eq!((changes.add, changes.change, changes.remove), (4, 0, 1));
    }

    #[test]
    fn sensitive_outputs_and_those_that_are_no_strings_are_left_out() {
        let line = r#"{"@level":"info","@message":"Outputs: 3","outputs":{"instance_id":{"sensitive":false,"type":"string","value":"i-1"},"password":{"sensitive":true,"type":"string","value":"hunter2"},"ports":{"sensitive":false,"type":["list","number"],"value":[1]},"planned":{"sensitive":false,"action":"create"}},"type":"outputs"}"#;
        let Message::Outputs(outputs) = Message::parse(line) else {
            panic!("no outputs");
        };
        assert_eq!(
            outputs,
            Outputs::from([("instance_id".to_owned(), "i-1".to_owned())])
        );
    }

    #[test]
    fn a_diagnostics_values_are_left_out() {
        let line = r#"{"@level":"error","@message":"Error: Invalid value","diagnostic":{"severity":"error","summary":"Invalid value","detail":"It must be even.","range":{},"snippet":{"code":"x = var.secret","values":[{"traversal":"var.secret","statement":"is \"hunter2\""}]}},"type":"diagnostic"}"#;
        let message = Message::parse(line);
        assert!(!format!("{message:?}").contains("hunter2"));
        let Message::Diagnostic(diagnostic) = message else {
            panic!("no diagnostic");
        };
        assert!(diagnostic.error);
        assert_eq!(diagnostic.summary, "Invalid value");
    }

    #[test]
    fn what_is_no_message_is_text() {
        for line in ["", "panic: runtime error", "[1,2]", r#"{"@level":5}"#] {
            assert_eq!(
                Message::parse(line),
                Message::Other {
                    level: Level::Info,
                    text: line.to_owned()
                }
            );
        }
    }

    proptest! {
        #[test]
        fn any_line_is_a_message(line in ".{0,300}") {
            let _ = Message::parse(&line);
        }
    }
}
