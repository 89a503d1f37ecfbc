//! What an enclave found when it verified its own document. The agent passes it
//! on and judges nothing.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use link::control::CheckOutcome;
use serde::{Deserialize, Serialize};

/// What the check came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The document was accepted.
    Passed,
    /// The document was refused.
    Failed,
    /// Nobody signs this machine's documents.
    Unsigned,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Passed, Self::Failed, Self::Unsigned];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Unsigned => "unsigned",
        }
    }
}

impl From<CheckOutcome> for Outcome {
    fn from(outcome: CheckOutcome) -> Self {
        match outcome {
            CheckOutcome::Passed => Self::Passed,
            CheckOutcome::Failed => Self::Failed,
            CheckOutcome::Unsigned => Self::Unsigned,
        }
    }
}

/// The check, as the init tells of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SelfCheck {
    /// What it came to.
    pub outcome: Outcome,
    /// The identifier of the rule that the document broke; empty if none.
    pub rule: String,
    /// The same for people; may be empty.
    pub detail: String,
    /// The document that was verified, in base64.
    pub document: String,
}

impl SelfCheck {
    /// What the init's message says.
    pub(crate) fn new(outcome: CheckOutcome, rule: &str, detail: &str, document: &[u8]) -> Self {
        Self {
            outcome: outcome.into(),
            rule: rule.to_owned(),
            detail: detail.to_owned(),
            document: STANDARD.encode(document),
        }
    }
}

/// One line for people.
impl fmt::Display for SelfCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.outcome.name())?;
        for part in [&self.rule, &self.detail] {
            if !part.is_empty() {
                write!(f, ": {part}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_what_was_broken_and_how() {
        let line = |outcome, rule, detail| SelfCheck::new(outcome, rule, detail, &[]).to_string();
        assert_eq!(line(CheckOutcome::Passed, "", ""), "passed");
        assert_eq!(
            line(CheckOutcome::Failed, "chain.root", "it is another"),
            "failed: chain.root: it is another"
        );
        assert_eq!(
            line(CheckOutcome::Unsigned, "", "nobody signs"),
            "unsigned: nobody signs"
        );
    }
}
