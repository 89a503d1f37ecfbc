//! What was checked, and how it went.

use serde::Serialize;

use crate::clock::Clock;
use crate::document::{Document, Profile};
use crate::purpose::Purpose;
use crate::roots::PinnedRoot;
use crate::rule::{Rejection, Rule};

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The rule was kept.
    Passed,
    /// The rule was broken.
    Failed,
    /// The policy does not ask.
    NotChecked,
}

/// Which question a report answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Whether the document is good now.
    Live,
    /// Whether it was good at another time, which says nothing about now.
    Audit,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Check {
    /// The rule.
    pub rule: Rule,
    /// How it went.
    pub outcome: Outcome,
    /// What the policy wants, where there is a value to name.
    pub expected: Option<String>,
    /// What the document holds, or why the rule was broken.
    pub actual: Option<String>,
}

/// Every check that was made, in order, and the end. A check that fails before
/// the policy's ends the verification, so later rules are absent; the policy's
/// checks are all made.
///
/// Serialised, it is the report that `attest verify --json` prints, whose schema
/// `docs/attest.md` describes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// The schema's version; it changes when a reader of this one would be misled.
    pub schema: u32,
    /// Whether it is a live verification's or an audit's.
    pub mode: Mode,
    /// Whether every rule was kept.
    pub accepted: bool,
    /// Whether the policy names the code that may run ([`Policy::names_code`]). If not,
    /// `accepted` says nothing of what runs.
    ///
    /// [`Policy::names_code`]: crate::Policy::names_code
    pub names_code: bool,
    /// The first rule that was broken.
    pub rejection: Option<Rejection>,
    /// The time of checking, in milliseconds since 1970; none where the bytes
    /// were no document, or where the clock shows an earlier year.
    pub checked_at_ms: Option<u64>,
    /// The pinned root that the document's certificates begin with; none if they begin
    /// with another.
    pub root: Option<PinnedRoot>,
    /// What the document says of itself. It is worth nothing unless accepted.
    pub document: Option<Claims>,
    /// The checks.
    pub checks: Vec<Check>,
}

/// What a document says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Claims {
    /// What made it.
    pub profile: Profile,
    /// What it was made for; none of a NitroTPM's.
    pub purpose: Option<Purpose>,
    /// Who made it.
    pub module_id: String,
    /// When, in milliseconds since 1970.
    pub timestamp_ms: u64,
    /// Keys that it has and whose meaning this verifier does not know.
    pub unknown_keys: Vec<String>,
}

impl Report {
    /// The schema that this version writes.
    pub const SCHEMA: u32 = 1;

    pub(crate) fn new(mode: Mode) -> Self {
        Self {
            schema: Self::SCHEMA,
            mode,
            accepted: false,
            names_code: false,
            rejection: None,
            checked_at_ms: None,
            root: None,
            document: None,
            checks: Vec::with_capacity(48),
        }
    }

    /// The bytes are a document: every rule of form was kept.
    pub(crate) fn parsed(&mut self, document: &Document<'_>, clock: Clock) {
        self.checked_at_ms = u64::try_from(clock.now_ms()).ok();
        self.document = Some(Claims {
            profile: document.profile,
            purpose: document.unverified_purpose(),
            module_id: document.module_id.to_owned(),
            timestamp_ms: document.timestamp_ms,
            unknown_keys: document.unverified_unknown_keys().collect(),
        });
        for rule in Rule::FORM {
            self.passed(rule);
        }
    }

    pub(crate) fn passed(&mut self, rule: Rule) {
        self.push(rule, Outcome::Passed, None, None);
    }

    /// Records the rule that ended the verification.
    pub(crate) fn refused(&mut self, rejection: &Rejection) {
        let reason = Some(rejection.reason.clone());
        self.push(rejection.rule, Outcome::Failed, None, reason);
    }

    /// Records that the policy does not ask, and what the document holds.
    pub(crate) fn not_checked(&mut self, rule: Rule, actual: String) {
        self.push(rule, Outcome::NotChecked, None, Some(actual));
    }

    /// Records a comparison.
    pub(crate) fn compare(&mut self, rule: Rule, held: bool, expected: String, actual: String) {
        let outcome = if held {
            Outcome::Passed
        } else {
            Outcome::Failed
        };
        self.push(rule, outcome, Some(expected), Some(actual));
    }

    fn push(
        &mut self,
        rule: Rule,
        outcome: Outcome,
        expected: Option<String>,
        actual: Option<String>,
    ) {
        self.checks.push(Check {
            rule,
            outcome,
            expected,
            actual,
        });
    }
}
