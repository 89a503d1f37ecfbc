//! What becomes of the workload's output.

mod pattern;
mod redaction;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use pattern::Pattern;
pub use redaction::{FieldPath, Redaction, Redactions};

/// Most rules of a `redact` list.
pub const MAX_REDACTIONS: usize = 16;
/// Most names of a `json_fields` list.
pub const MAX_JSON_FIELDS: usize = 64;
/// Longest text that a secret is replaced with, in bytes.
const MAX_REPLACEMENT_BYTES: usize = 64;
/// Longest name of a JSON field, in bytes, its dots included.
const MAX_FIELD_BYTES: usize = 256;
/// The least and the most buffer, in MiB.
const BUFFER_MIB: std::ops::RangeInclusive<u8> = 1..=64;
const MIB: usize = 1024 * 1024;

/// Why a value of the `[logs]` table was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LogsError {
    /// The buffer is not a whole number of MiB from 1 to 64.
    #[error(
        "`{0}` is not a size for the log buffer: write a whole number of MiB from {least} to {most}, as in `4MiB`",
        least = BUFFER_MIB.start(),
        most = BUFFER_MIB.end()
    )]
    Buffer(String),
    /// Not a regular expression, or not one that can be used.
    #[error("`{pattern}` is not a regular expression that can be used: {reason}")]
    Pattern {
        /// As it was written.
        pattern: String,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// A rule names neither a pattern nor JSON fields, or both.
    #[error(
        "a redaction needs either `pattern = \"REGEX\"`, and `with = \"TEXT\"` if need be, or `json_fields = [\"NAME\"]`"
    )]
    Rule,
    /// What a secret is replaced with is too long or breaks the line.
    #[error(
        "`{0}` cannot replace a secret: write at most {MAX_REPLACEMENT_BYTES} bytes without control characters"
    )]
    Replacement(String),
    /// Not the name of a JSON field.
    #[error(
        "`{0}` does not name a JSON field: write its name, or the names on the way to it joined by dots, as in `card.number`, at most {MAX_FIELD_BYTES} bytes"
    )]
    Field(String),
    /// More rules than are allowed.
    #[error(
        "{0} redactions are more than the {MAX_REDACTIONS} that are allowed: join patterns with `|`"
    )]
    Redactions(usize),
    /// A list of fields that is empty or longer than is allowed.
    #[error("a rule names 1 to {MAX_JSON_FIELDS} JSON fields, not {0}")]
    FieldCount(usize),
}

/// The `[logs]` table. All of it is measured, so the parent cannot switch
/// leakage on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Logs {
    /// Which lines may leave the enclave.
    pub release: LogRelease,
    /// What happens to lines that the buffer has no room for.
    pub when_full: WhenFull,
    /// Memory for records that the parent does not hold yet.
    pub buffer: LogBuffer,
    /// How records travel.
    pub compression: Compression,
    /// How lines that belong together are found, if at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub multiline: Option<Multiline>,
    /// What is taken out of each record, one rule after the other.
    #[serde(skip_serializing_if = "Redactions::is_empty")]
    pub redact: Redactions,
}

/// Which of the workload's log lines may leave the enclave.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogRelease {
    /// All of them.
    #[default]
    Always,
    /// All of them, but only from an enclave in debug mode, whose PCR0 is zero.
    DebugOnly,
    /// None.
    Never,
}

/// What happens when the buffer is full.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhenFull {
    /// The workload waits while the parent takes records; once the parent has
    /// taken none for a second, the oldest are dropped and counted.
    #[default]
    DropOldest,
    /// The workload waits, however long it takes.
    Block,
}

/// How records travel to the parent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compression {
    /// As they are.
    #[default]
    None,
    /// Compressed, batch by batch.
    Zstd,
}

/// Memory for records that the parent does not hold yet: 1 to 64 MiB, written
/// `4MiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LogBuffer(u8);

impl LogBuffer {
    /// The size in bytes.
    pub const fn bytes(self) -> usize {
        self.0 as usize * MIB
    }
}

impl Default for LogBuffer {
    /// 4 MiB.
    fn default() -> Self {
        Self(4)
    }
}

impl FromStr for LogBuffer {
    type Err = LogsError;

    fn from_str(text: &str) -> Result<Self, LogsError> {
        text.strip_suffix("MiB")
            .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|digits| digits.parse().ok())
            .filter(|number| BUFFER_MIB.contains(number))
            .map(Self)
            .ok_or_else(|| LogsError::Buffer(text.to_owned()))
    }
}

impl TryFrom<String> for LogBuffer {
    type Error = LogsError;

    fn try_from(text: String) -> Result<Self, LogsError> {
        text.parse()
    }
}

impl fmt::Display for LogBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}MiB", self.0)
    }
}

impl From<LogBuffer> for String {
    fn from(buffer: LogBuffer) -> Self {
        buffer.to_string()
    }
}

/// The `multiline` table: how lines that belong together are found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Multiline {
    /// Found in the first line of a record, and in no other line of it.
    pub start: Pattern,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn read(value: Value) -> Result<Logs, String> {
        serde_json::from_value(value).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_absent_has_its_default_and_is_written_the_same() {
        let logs = read(json!({})).unwrap();
        assert_eq!(logs, Logs::default());
        assert_eq!(
            serde_json::to_value(&logs).unwrap(),
            json!({
                "release": "always",
                "when_full": "drop-oldest",
                "buffer": "4MiB",
                "compression": "none",
            })
        );
        let logs = read(json!({"redact": [], "buffer": "04MiB"})).unwrap();
        assert_eq!(logs, Logs::default());
    }

    #[test]
    fn every_key_reads_back() {
        let value = json!({
            "release": "never",
            "when_full": "block",
            "buffer": "64MiB",
            "compression": "zstd",
            "multiline": {"start": r"^\S"},
            "redact": [
                {"pattern": r"\b\d{16}\b", "with": "card"},
                {"json_fields": ["password", "card.number"]},
            ],
        });
        let logs = read(value.clone()).unwrap();
        assert_eq!(logs.buffer.bytes(), 64 << 20);
        assert_eq!(serde_json::to_value(&logs).unwrap(), value);
        let Redaction::JsonFields(fields) = &logs.redact[1] else {
            panic!("{logs:?}");
        };
        assert!(fields[1].names().eq(["number", "card"]));
    }

    #[test]
    fn a_pattern_alone_is_replaced_with_stars() {
        let rule: Redaction = serde_json::from_value(json!({"pattern": "x"})).unwrap();
        assert!(matches!(rule, Redaction::Pattern { with, .. } if with == "***"));
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_the_reason() {
        let pattern = |pattern: &str| json!({"redact": [{"pattern": pattern}]});
        for (value, message) in [
            (
                pattern("a(b"),
                "`a(b` is not a regular expression that can be used: unclosed group",
            ),
            (pattern("x*"), "it can match the empty text"),
            (pattern(r"\b|x+"), "it can match the empty text"),
            (
                pattern(r"(?s).{1000}{100}"),
                "needs more than 262144 bytes of memory",
            ),
            (pattern(&"x".repeat(1025)), "more than 1024 bytes"),
            (pattern(r"\p{Greek}"), "Unicode"),
            (
                json!({"multiline": {"start": "["}}),
                "unclosed character class",
            ),
            (json!({"multiline": {}}), "missing field `start`"),
            (json!({"redact": [{}]}), "a redaction needs either"),
            (
                json!({"redact": [{"with": "x"}]}),
                "a redaction needs either",
            ),
            (
                json!({"redact": [{"pattern": "x", "json_fields": ["a"]}]}),
                "a redaction needs either",
            ),
            (
                json!({"redact": [{"with": "x", "json_fields": ["a"]}]}),
                "a redaction needs either",
            ),
            (
                json!({"redact": [{"pattern": "x", "with": "a\nb"}]}),
                "cannot replace a secret",
            ),
            (
                json!({"redact": [{"pattern": "x", "with": "x".repeat(65)}]}),
                "cannot replace a secret",
            ),
            (
                json!({"redact": [{"json_fields": []}]}),
                "1 to 64 JSON fields, not 0",
            ),
            (
                json!({"redact": [{"json_fields": vec!["a"; 65]}]}),
                "not 65",
            ),
            (
                json!({"redact": [{"json_fields": ["a..b"]}]}),
                "`a..b` does not name a JSON field",
            ),
            (
                json!({"redact": [{"json_fields": [""]}]}),
                "does not name a JSON field",
            ),
            (
                json!({"redact": vec![json!({"pattern": "x"}); 17]}),
                "17 redactions are more",
            ),
            (
                json!({"buffer": "0MiB"}),
                "`0MiB` is not a size for the log buffer",
            ),
            (json!({"buffer": "65MiB"}), "from 1 to 64"),
            (json!({"buffer": "+4MiB"}), "is not a size"),
            (json!({"buffer": "4MB"}), "is not a size"),
            (json!({"buffer": "MiB"}), "is not a size"),
            (json!({"buffer": 4}), "expected a string"),
            (json!({"when_full": "drop"}), "unknown variant `drop`"),
            (json!({"compression": "gzip"}), "unknown variant `gzip`"),
            (json!({"level": 1}), "unknown field `level`"),
        ] {
            let error = read(value.clone()).expect_err(&value.to_string());
            assert!(error.contains(message), "{value}: {error}");
        }
    }

    proptest! {
        #[test]
        fn what_a_buffer_prints_reads_back(mib in 1_u8..=64) {
            let buffer: LogBuffer = format!("{mib}MiB").parse().unwrap();
            prop_assert_eq!(buffer.to_string().parse::<LogBuffer>().unwrap(), buffer);
        }

        #[test]
        fn arbitrary_text_is_no_panic(text: String) {
            let _ = (text.parse::<LogBuffer>(), text.parse::<Pattern>(), FieldPath::try_from(text));
        }
    }
}
