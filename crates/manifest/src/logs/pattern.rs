//! Regular expressions over the workload's output.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use plain_text::plain;
use regex_automata::hybrid::dfa::DFA;
use regex_automata::hybrid::regex::{Cache, Regex};
use regex_automata::nfa::thompson;
use regex_automata::util::prefilter::Prefilter;
use regex_automata::util::syntax;
use regex_automata::{Input, MatchKind};
use serde::{Deserialize, Serialize};

use super::LogsError;

/// Longest regular expression, in bytes.
const MAX_PATTERN_BYTES: usize = 1024;
/// Most memory of a compiled regular expression, in bytes.
const MAX_COMPILED_BYTES: usize = 256 * 1024;
/// Most memory that a search may use for states that it has seen, in bytes.
const MAX_SEARCH_BYTES: usize = 256 * 1024;

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
                "it can match the empty text, so it is found everywhere; require at least one character".to_owned(),
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
    plain(last.strip_prefix("error: ").unwrap_or(last))
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
