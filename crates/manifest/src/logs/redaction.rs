//! What is taken out of the workload's output.

use std::ops::Deref;

use serde::{Deserialize, Serialize};

use super::pattern::Pattern;
use super::{LogsError, MAX_FIELD_BYTES, MAX_JSON_FIELDS, MAX_REDACTIONS, MAX_REPLACEMENT_BYTES};

/// What a secret is replaced with, unless its rule says otherwise.
const REPLACEMENT: &str = "***";

/// The `redact` list: at most [`MAX_REDACTIONS`] rules.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Redaction>", into = "Vec<Redaction>")]
pub struct Redactions(Vec<Redaction>);

impl Deref for Redactions {
    type Target = [Redaction];

    fn deref(&self) -> &[Redaction] {
        &self.0
    }
}

impl Redactions {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl TryFrom<Vec<Redaction>> for Redactions {
    type Error = LogsError;

    fn try_from(rules: Vec<Redaction>) -> Result<Self, LogsError> {
        if rules.len() > MAX_REDACTIONS {
            return Err(LogsError::Redactions(rules.len()));
        }
        Ok(Self(rules))
    }
}

impl From<Redactions> for Vec<Redaction> {
    fn from(redactions: Redactions) -> Self {
        redactions.0
    }
}

/// One rule of a `redact` list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Table", into = "Table")]
pub enum Redaction {
    /// Every match is replaced.
    Pattern {
        /// What is searched.
        pattern: Pattern,
        /// What it is replaced with.
        with: String,
    },
    /// The values of these fields are replaced with `"***"`.
    JsonFields(Vec<FieldPath>),
}

/// The name of a JSON field, or the names on the way to it joined by dots: a
/// field of this name at any depth.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FieldPath(String);

impl FieldPath {
    /// The names, from the field itself outwards.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.rsplit('.')
    }
}

impl TryFrom<String> for FieldPath {
    type Error = LogsError;

    fn try_from(text: String) -> Result<Self, LogsError> {
        if text.len() > MAX_FIELD_BYTES || text.split('.').any(str::is_empty) {
            return Err(LogsError::Field(text));
        }
        Ok(Self(text))
    }
}

impl From<FieldPath> for String {
    fn from(path: FieldPath) -> Self {
        path.0
    }
}

/// A rule as it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pattern: Option<Pattern>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    with: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    json_fields: Option<Vec<FieldPath>>,
}

impl TryFrom<Table> for Redaction {
    type Error = LogsError;

    fn try_from(table: Table) -> Result<Self, LogsError> {
        match (table.pattern, table.with, table.json_fields) {
            (Some(pattern), with, None) => {
                let with = with.unwrap_or_else(|| REPLACEMENT.to_owned());
                if with.len() > MAX_REPLACEMENT_BYTES || with.contains(char::is_control) {
                    return Err(LogsError::Replacement(with));
                }
                Ok(Self::Pattern { pattern, with })
            }
            (None, None, Some(fields)) if (1..=MAX_JSON_FIELDS).contains(&fields.len()) => {
                Ok(Self::JsonFields(fields))
            }
            (None, None, Some(fields)) => Err(LogsError::FieldCount(fields.len())),
            _ => Err(LogsError::Rule),
        }
    }
}

impl From<Redaction> for Table {
    fn from(rule: Redaction) -> Self {
        let (pattern, with, json_fields) = match rule {
            Redaction::Pattern { pattern, with } => (Some(pattern), Some(with), None),
            Redaction::JsonFields(fields) => (None, None, Some(fields)),
        };
        Self {
            pattern,
            with,
            json_fields,
        }
    }
}
