//! Why a run failed, for the workflow and for the exit code.

use serde_json::json;
use thiserror::Error;

use crate::assignment::Problems;
use crate::lock::Held;
use crate::message::Diagnostic;

/// The exit codes of `terraform-runner`; `docs/exit-codes.md` explains them.
pub mod exit_code {
    /// Done, and the workflow was told.
    pub const DONE: u8 = 0;
    /// The work folder, or starting Terraform.
    pub const HOST: u8 = 1;
    /// The environment cannot be used.
    pub const CONFIGURATION: u8 = 2;
    /// Terraform failed.
    pub const TERRAFORM: u8 = 3;
    /// Somebody else holds the state's lock.
    pub const LOCKED: u8 = 4;
    /// Stopped by a signal; Terraform ended in order.
    pub const STOPPED: u8 = 5;
    /// Stopped, and Terraform had to be killed: the state may still be locked.
    pub const KILLED: u8 = 6;
    /// The workflow no longer waits for this task.
    pub const ABANDONED: u8 = 7;
    /// Done, but the workflow could not be told.
    pub const UNREPORTED: u8 = 8;
}

/// Most diagnostics that are reported.
const MAX_DIAGNOSTICS: usize = 5;
/// Longest part of a diagnostic's detail in a message, in characters.
const MAX_DETAIL: usize = 600;

/// Why a run failed.
#[derive(Debug, Error)]
pub enum Failure {
    /// The environment cannot be used.
    #[error(transparent)]
    Configuration(#[from] Problems),
    /// The machine lacks something.
    #[error("{0}")]
    Host(String),
    /// Terraform failed.
    #[error("{}", terraform(.command, *.code, .diagnostics))]
    Terraform {
        /// Terraform's sub-command.
        command: &'static str,
        /// Its exit code; none if a signal ended it.
        code: Option<i32>,
        /// Its errors.
        diagnostics: Vec<Diagnostic>,
    },
    /// Somebody else holds the state's lock.
    #[error(
        "the enclave's Terraform state is locked ({0}): wait until that run has ended; if it is gone, `terraform force-unlock` releases the lock"
    )]
    Locked(Held),
    /// Stopped by a signal.
    #[error(
        "the Terraform task was stopped during `terraform {command}`; Terraform ended in order and released the state's lock"
    )]
    Stopped {
        /// Terraform's sub-command.
        command: &'static str,
    },
    /// Terraform did not stop when it was told to.
    #[error(
        "`terraform {command}` did not stop when it was told to and was killed: what it was changing may be missing from its state, and the state's lock may remain"
    )]
    Killed {
        /// Terraform's sub-command.
        command: &'static str,
    },
    /// The workflow no longer waits.
    #[error("the workflow no longer waits for this task ({0}); Terraform was stopped")]
    Abandoned(String),
    /// The workflow could not be told.
    #[error("Terraform is done, but the workflow could not be notified: {0}")]
    Unreported(String),
}

impl Failure {
    /// The error's name in the workflow.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Configuration(_) => "InvalidConfiguration",
            Self::Host(_) => "RunnerFailed",
            Self::Terraform { .. } => "TerraformFailed",
            Self::Locked(_) => "StateLocked",
            Self::Stopped { .. } => "RunnerStopped",
            Self::Killed { .. } => "TerraformKilled",
            Self::Abandoned(_) => "Abandoned",
            Self::Unreported(_) => "Unreported",
        }
    }

    /// The program's exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Configuration(_) => exit_code::CONFIGURATION,
            Self::Host(_) => exit_code::HOST,
            Self::Terraform { .. } => exit_code::TERRAFORM,
            Self::Locked(_) => exit_code::LOCKED,
            Self::Stopped { .. } => exit_code::STOPPED,
            Self::Killed { .. } => exit_code::KILLED,
            Self::Abandoned(_) => exit_code::ABANDONED,
            Self::Unreported(_) => exit_code::UNREPORTED,
        }
    }

    /// What the workflow gets: the message, and facts for programs. It has the shape
    /// of a function's failure, so that the error handler reads both alike.
    pub(super) fn cause(&self) -> String {
        let message = self.to_string();
        let cause = match self {
            Self::Terraform {
                command,
                code,
                diagnostics,
            } => json!({
                "errorType": self.name(),
                "errorMessage": message,
                "command": command,
                "exit_code": code,
                "diagnostics": diagnostics,
            }),
            _ => json!({ "errorType": self.name(), "errorMessage": message }),
        };
        cause.to_string()
    }
}

fn terraform(command: &str, code: Option<i32>, diagnostics: &[Diagnostic]) -> String {
    let end = match code {
        Some(code) => format!("exit code {code}"),
        None => "ended by a signal".to_owned(),
    };
    let reasons: Vec<String> = diagnostics
        .iter()
        .take(MAX_DIAGNOSTICS)
        .map(reason)
        .collect();
    let reasons = if reasons.is_empty() {
        "it gave no reason; the runner's log has all that it wrote".to_owned()
    } else {
        reasons.join("; ")
    };
    format!("`terraform {command}` failed ({end}): {reasons}")
}

fn reason(diagnostic: &Diagnostic) -> String {
    let mut reason = diagnostic.summary.clone();
    if let Some(address) = &diagnostic.address {
        reason = format!("{address}: {reason}");
    }
    if !diagnostic.detail.is_empty() {
        let detail: Vec<&str> = diagnostic.detail.split_whitespace().collect();
        let detail: String = detail.join(" ").chars().take(MAX_DETAIL).collect();
        reason = format!("{reason}: {detail}");
    }
    reason
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terraforms_errors_are_one_line() {
        let failure = Failure::Terraform {
            command: "apply",
            code: Some(1),
            diagnostics: vec![Diagnostic {
                error: true,
                summary: "creating EC2 Instance".to_owned(),
                detail: "operation error EC2:\n  InsufficientInstanceCapacity".to_owned(),
                address: Some("aws_instance.enclave".to_owned()),
            }],
        };
        assert_eq!(
            failure.to_string(),
            "`terraform apply` failed (exit code 1): aws_instance.enclave: creating EC2 Instance: operation error EC2: InsufficientInstanceCapacity"
        );
        let cause: serde_json::Value = serde_json::from_str(&failure.cause()).unwrap();
        assert_eq!(cause["errorMessage"], failure.to_string());
        assert_eq!(cause["exit_code"], 1);
    }

    #[test]
    fn exit_codes_are_distinct_and_documented() {
        let documented = include_str!("../../../docs/exit-codes.md");
        let section = documented.split("## terraform-runner").nth(1).unwrap();
        let section = section.split("\n## ").next().unwrap();
        let codes = [
            exit_code::DONE,
            exit_code::HOST,
            exit_code::CONFIGURATION,
            exit_code::TERRAFORM,
            exit_code::LOCKED,
            exit_code::STOPPED,
            exit_code::KILLED,
            exit_code::ABANDONED,
            exit_code::UNREPORTED,
        ];
        for (index, code) in codes.iter().enumerate() {
            assert!(section.contains(&format!("| {code} |")), "{code}");
            assert!(!codes[..index].contains(code), "{code}");
        }
    }
}
