//! What is known of the attestation gate.

use std::sync::{Mutex, PoisonError};

use log_spool::{now_us, timestamp};
use serde::{Deserialize, Serialize};

/// What the gate said last of the enclave.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It has not been shown a document yet.
    #[default]
    Waiting,
    /// It has accepted one.
    Accepted,
    /// It has refused one.
    Refused,
}

/// The gate in `status`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateStatus {
    /// The function.
    pub function: String,
    /// What it said last.
    pub verdict: Verdict,
    /// The same in its own words; may be empty.
    pub message: String,
    /// When it said so, RFC 3339.
    pub decided_at: Option<String>,
    /// Documents accepted.
    pub accepted: u64,
    /// Documents refused.
    pub refused: u64,
    /// Rounds that failed.
    pub failures: u64,
    /// Why the last round failed, until one does not.
    pub last_error: Option<String>,
}

/// What is known of the gate, shared between those who ask it and the API.
#[derive(Debug)]
pub struct GateBoard(Mutex<GateStatus>);

impl GateBoard {
    /// A gate that was not asked yet.
    pub fn new(function: &str) -> Self {
        Self(Mutex::new(GateStatus {
            function: function.to_owned(),
            ..GateStatus::default()
        }))
    }

    /// What is known now.
    pub fn read(&self) -> GateStatus {
        self.update(|status| status.clone())
    }

    pub(crate) fn update<T>(&self, change: impl FnOnce(&mut GateStatus) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl GateStatus {
    /// Takes note of an answer to a document.
    pub(crate) fn answered(&mut self, accepted: bool, message: &str) {
        if accepted {
            self.verdict = Verdict::Accepted;
            self.accepted += 1;
        } else {
            self.verdict = Verdict::Refused;
            self.refused += 1;
        }
        message.clone_into(&mut self.message);
        self.decided_at = Some(timestamp(now_us()));
    }

    /// Takes note of a round that did not fail, and says whether the one before did.
    pub(crate) fn reached(&mut self) -> bool {
        self.last_error.take().is_some()
    }

    /// Takes note of a failure, and says whether it is news.
    pub(crate) fn failed(&mut self, error: &str) -> bool {
        self.failures += 1;
        let is_news = self.last_error.is_none();
        self.last_error = Some(error.to_owned());
        is_news
    }

    /// One line for people.
    pub fn line(&self) -> String {
        let mut line = match self.verdict {
            Verdict::Waiting => "waiting for a challenge".to_owned(),
            Verdict::Accepted => "accepted".to_owned(),
            Verdict::Refused => format!("refused: {}", self.message),
        };
        if let Some(at) = &self.decided_at {
            line += " at ";
            line += at;
        }
        line += " by ";
        line += &self.function;
        if let Some(error) = &self.last_error {
            line += ", failing: ";
            line += error;
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_what_an_operator_must_know() {
        let mut status = GateStatus {
            function: "gate".to_owned(),
            ..GateStatus::default()
        };
        assert_eq!(status.line(), "waiting for a challenge by gate");
        assert!(status.failed("denied"));
        assert!(!status.failed("still denied"));
        assert!(status.line().ends_with("failing: still denied"));
        assert!(status.reached());
        assert!(!status.reached());
        status.answered(false, "PCR0 differs");
        assert!(status.line().starts_with("refused: PCR0 differs at 2"));
        status.answered(true, "");
        assert!(status.line().starts_with("accepted at 2"));
        assert_eq!(
            (status.accepted, status.refused, status.failures),
            (1, 1, 2)
        );
    }
}
