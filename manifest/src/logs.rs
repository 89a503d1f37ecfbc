//! What becomes of the workload's output.

use std::fmt;
use std::ops::{Deref, Range};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use regex_automata::hybrid::dfa::DFA;
use regex_automata::hybrid::regex::{Cache, Regex};
use regex_automata::nfa::thompson;
use regex_automata::util::prefilter::Prefilter;
use regex_automata::util::syntax;
use regex_automata::{Input, MatchKind};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::text::one_line;

/// Most rules of a `redact` list.
pub const MAX_REDACTIONS: usize = 16;
/// Most names of a `json_fields` list.
pub const MAX_JSON_FIELDS: usize = 64;
/// Longest regular expression, in bytes.
const MAX_PATTERN_BYTES: usize = 1024;
/// Most memory of a compiled regular expression, in bytes.
const MAX_COMPILED_BYTES: usize = 256 * 1024;
/// Most memory that a search may use for states that it has seen, in bytes.
const MAX_SEARCH_BYTES: usize = 256 * 1024;
/// Longest text that a secret is replaced with, in bytes.
const MAX_REPLACEMENT_BYTES: usize = 64;
/// Longest name of a JSON field, in bytes, its dots included.
const MAX_FIELD_BYTES: usize = 256;
/// The least and the most buffer, in MiB.
const BUFFER_MIB: std::ops::RangeInclusive<u8> = 1..=64;
/// What a secret is replaced with, unless its rule says otherwise.
const REPLACEMENT: &str = "***";
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

/// A regular expression, searched in bytes: `\d`, `\s`, `\w`, `\b` and `(?i)`
/// know ASCII only, `.` is any byte but the line's end, and `^` and `$` match at
/// each line. It never matches the empty text. A search takes linear time.
///
/// Searched with a lazy DFA alone: the `regex` crate chooses among several
/// engines, which together are too large for the init.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern {
    text: String,
    search: Arc<Search>,
}

struct Search {
    regex: Regex,
    /// The states that searches have seen so far.
    cache: Mutex<Cache>,
}

impl Pattern {
    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it is found in the text.
    pub fn is_match(&self, text: &[u8]) -> bool {
        self.find_at(text, 0).is_some()
    }

    /// The first match that begins at `start` or later; never an empty one. What
    /// lies before is context for `^` and `\b`.
    pub fn find_at(&self, text: &[u8], start: usize) -> Option<Range<usize>> {
        if start > text.len() {
            return None;
        }
        let input = Input::new(text).range(start..);
        let Search { regex, cache } = &*self.search;
        let mut cache = cache.lock().unwrap_or_else(PoisonError::into_inner);
        match regex.try_search(&mut cache, &input) {
            Ok(found) => found.map(|found| found.range()),
            // As it is configured it never gives up; if it did, nothing could be
            // said about the rest.
            Err(_) => Some(start..text.len()),
        }
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({:?})", self.text)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

impl FromStr for Pattern {
    type Err = LogsError;

    fn from_str(text: &str) -> Result<Self, LogsError> {
        let error = |reason: String| LogsError::Pattern {
            pattern: text.to_owned(),
            reason,
        };
        if text.len() > MAX_PATTERN_BYTES {
            return Err(error(format!(
                "it has more than {MAX_PATTERN_BYTES} bytes; split it"
            )));
        }
        let syntax = syntax::Config::new()
            .unicode(false)
            .utf8(false)
            .multi_line(true);
        let parsed =
            syntax::parse_with(text, &syntax).map_err(|cause| error(reason(&cause.to_string())))?;
        if parsed.properties().minimum_len() == Some(0) {
            return Err(error(
                "it can match nothing at all, so it is found everywhere; ask for at least one character".to_owned(),
            ));
        }
        let prefilter = Prefilter::from_hir_prefix(MatchKind::LeftmostFirst, &parsed);
        let limit = Some(MAX_COMPILED_BYTES);
        let regex = Regex::builder()
            .syntax(syntax)
            .thompson(thompson::Config::new().utf8(false).nfa_size_limit(limit))
            .dfa(
                DFA::config()
                    .prefilter(prefilter)
                    .cache_capacity(MAX_SEARCH_BYTES),
            )
            .build(text)
            .map_err(|_| {
                error(format!(
                    "it needs more than {MAX_COMPILED_BYTES} bytes of memory; lower its repetitions"
                ))
            })?;
        let cache = Mutex::new(regex.create_cache());
        Ok(Self {
            text: text.to_owned(),
            search: Arc::new(Search { regex, cache }),
        })
    }
}

/// What is wrong, without the drawing that the parser puts around it.
fn reason(error: &str) -> String {
    let last = error.lines().last().unwrap_or_default();
    one_line(last.strip_prefix("error: ").unwrap_or(last))
}

impl TryFrom<String> for Pattern {
    type Error = LogsError;

    fn try_from(text: String) -> Result<Self, LogsError> {
        text.parse()
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.text
    }
}

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
    fn is_empty(&self) -> bool {
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
    fn patterns_search_bytes() {
        let found =
            |pattern: &str, bytes: &[u8]| pattern.parse::<Pattern>().unwrap().is_match(bytes);
        assert!(found(r"k.y=\w+$", b"k\xffy=a\n\xfe"));
        assert!(found("straße", "Hauptstraße 1".as_bytes()));
        assert!(found(r"(?i)TOKEN", b"token"));
        assert!(found("^b", b"a\nb"));
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_the_reason() {
        let pattern = |pattern: &str| json!({"redact": [{"pattern": pattern}]});
        for (value, message) in [
            (
                pattern("a(b"),
                "`a(b` is not a regular expression that can be used: unclosed group",
            ),
            (pattern("x*"), "it can match nothing at all"),
            (pattern(r"\b|x+"), "it can match nothing at all"),
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

    #[test]
    fn the_next_match_begins_where_the_last_ended() {
        let pattern: Pattern = r"\b[a-z]{2}".parse().unwrap();
        let text = b"abcd xy z\nuv";
        let mut found = Vec::new();
        let mut at = 0;
        while let Some(range) = pattern.find_at(text, at) {
            at = range.end;
            found.push(range);
        }
        assert_eq!(found, [0..2, 5..7, 10..12]);
        assert_eq!(pattern.find_at(text, text.len() + 1), None);
    }

    #[test]
    fn a_search_that_outgrows_its_memory_still_finds() {
        // Each position of the text is another set of states.
        let pattern: Pattern = "(?s)a[ab]{300}c".parse().unwrap();
        let mut random = 1_u32;
        let mut text: Vec<u8> = (0..20_000)
            .map(|_| {
                random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                b"ab"[(random >> 31) as usize]
            })
            .collect();
        assert_eq!(pattern.find_at(&text, 0), None);
        text.push(b'c');
        let found = pattern.find_at(&text, 0);
        let expected = (text[19_699] == b'a').then_some(19_699..20_001);
        assert_eq!(found, expected);
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
