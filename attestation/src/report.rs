//! What was checked, and how it went.

use serde::{Serialize, Serializer};

use crate::rule::Rule;

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The rule was kept.
    Passed,
    /// The rule was broken.
    Failed,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// The rule.
    #[serde(serialize_with = "as_identifier")]
    pub rule: Rule,
    /// How it went.
    pub outcome: Outcome,
    /// What the policy wants, where there is a value to name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    /// What the document holds, or why the rule was broken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actual: Option<String>,
}

/// Every check that was made, in order. A check that fails before the policy's
/// ends the verification, so later rules are absent; the policy's checks are
/// all made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The checks.
    pub checks: Vec<Check>,
}

impl Report {
    pub(crate) fn passed(&mut self, rule: Rule) {
        self.checks.push(Check {
            rule,
            outcome: Outcome::Passed,
            expected: None,
            actual: None,
        });
    }

    /// Records a comparison, and says whether it held.
    pub(crate) fn compare(&mut self, rule: Rule, held: bool, expected: String, actual: String) {
        self.checks.push(Check {
            rule,
            outcome: if held {
                Outcome::Passed
            } else {
                Outcome::Failed
            },
            expected: Some(expected),
            actual: Some(actual),
        });
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn as_identifier<S: Serializer>(rule: &Rule, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(rule)
}
