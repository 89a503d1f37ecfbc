//! Secrets taken out of records before they are numbered.

use std::borrow::Cow;

use manifest::{Pattern, Redaction, Redactions};

use super::json::Fields;

/// The longest text that is searched, in bytes. What is longer is withheld: a
/// secret could lie across any place where it was cut.
pub(super) const MAX_SEARCHED: usize = 256 * 1024;

/// The manifest's rules, one after the other.
#[derive(Debug, Default)]
pub(super) struct Redactor(Vec<Rule>);

#[derive(Debug)]
enum Rule {
    Pattern { pattern: Pattern, with: Box<[u8]> },
    Fields(Fields),
}

impl Redactor {
    pub(super) fn new(rules: &Redactions) -> Self {
        let rule = |rule: &Redaction| match rule {
            Redaction::Pattern { pattern, with } => Rule::Pattern {
                pattern: pattern.clone(),
                with: with.as_bytes().into(),
            },
            Redaction::JsonFields(fields) => {
                Rule::Fields(Fields::new(fields.iter().map(manifest::FieldPath::names)))
            }
        };
        Self(rules.iter().map(rule).collect())
    }

    /// Whether there is no rule, so that every text stays as it is.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The text without its secrets; `None` if it is too long to be searched, or
    /// becomes so.
    pub(super) fn redact<'a>(&self, text: &'a [u8]) -> Option<Cow<'a, [u8]>> {
        let mut text = Cow::Borrowed(text);
        for rule in &self.0 {
            if text.len() > MAX_SEARCHED {
                return None;
            }
            let replaced = match rule {
                Rule::Pattern { pattern, with } => replace(pattern, with, &text)?,
                Rule::Fields(fields) => fields.replace(&text),
            };
            if let Some(replaced) = replaced {
                text = Cow::Owned(replaced);
            }
        }
        (self.is_empty() || text.len() <= MAX_SEARCHED).then_some(text)
    }

    /// What stands for a text of so many bytes that is withheld.
    pub(super) fn withheld(bytes: usize) -> String {
        format!(
            "[withheld: a line of {bytes} bytes; at most {MAX_SEARCHED} can be searched for secrets]"
        )
    }
}

/// The text with all matches replaced: nothing inside if there are none, nothing
/// at all if it becomes too long.
#[allow(clippy::option_option, reason = "two different absences")]
fn replace(pattern: &Pattern, with: &[u8], text: &[u8]) -> Option<Option<Vec<u8>>> {
    let mut replaced = Vec::new();
    let mut copied = 0;
    while let Some(found) = pattern.find_at(text, copied) {
        replaced.extend_from_slice(
            text.get(copied..found.start)
                .expect("a match lies behind the last one"),
        );
        replaced.extend_from_slice(with);
        copied = found.end;
        if replaced.len() > MAX_SEARCHED {
            return None;
        }
    }
    if copied == 0 {
        return Some(None);
    }
    replaced.extend_from_slice(text.get(copied..).expect("a match ends within the text"));
    Some(Some(replaced))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn redactor(rules: serde_json::Value) -> Redactor {
        Redactor::new(&serde_json::from_value(rules).unwrap())
    }

    #[test]
    fn rules_apply_one_after_the_other() {
        let redactor = redactor(json!([
            {"pattern": r"\b\d{16}\b", "with": "card"},
            {"json_fields": ["password"]},
            {"pattern": "(?i)card", "with": "[card]"},
        ]));
        let text = br#"{"password":"x","n":"4111111111111111","m":"41111111111111110"}"#;
        assert_eq!(
            redactor.redact(text).unwrap(),
            br#"{"password":"***","n":"[card]","m":"41111111111111110"}"#.as_slice()
        );
        assert!(matches!(
            redactor.redact(b"\xff"),
            Some(Cow::Borrowed(b"\xff"))
        ));
    }

    #[test]
    fn what_is_or_becomes_too_long_is_withheld() {
        let redactor = redactor(json!([{"pattern": "x", "with": "yyyy"}]));
        let longest = vec![b'a'; MAX_SEARCHED];
        assert!(redactor.redact(&longest).is_some());
        assert!(redactor.redact(&vec![b'a'; MAX_SEARCHED + 1]).is_none());
        assert!(redactor.redact(&vec![b'x'; MAX_SEARCHED / 4]).is_some());
        assert!(redactor.redact(&vec![b'x'; MAX_SEARCHED / 4 + 1]).is_none());
        let mut last = longest;
        last[MAX_SEARCHED - 1] = b'x';
        assert!(redactor.redact(&last).is_none());
        assert!(
            Redactor::default()
                .redact(&vec![b'a'; MAX_SEARCHED + 1])
                .is_some()
        );
    }
}
