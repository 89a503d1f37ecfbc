//! Texts with wildcards, and with policy variables.

use crate::context::{Value, Values};
use crate::error::{Problem, shown};
use crate::key::ConditionKey;
use crate::truth::Truth;

/// A text of a policy, which may name values of the request (IAM, "Policy elements:
/// Variables and tags").
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Character(char),
    /// `${*}` and the like: a character that is no wildcard.
    Escaped(char),
    Variable {
        key: ConditionKey,
        default: Option<String>,
    },
}

/// A part of a text that is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Token {
    Character(char),
    /// `?`
    One,
    /// `*`
    Any,
}

impl Template {
    /// Reads a text; variables are there from version 2012-10-17 on.
    pub(crate) fn parse(text: &str, variables: bool) -> Result<Self, Problem> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(character) = rest.chars().next() {
            if let Some(after) = rest.strip_prefix("${").filter(|_| variables) {
                let unknown = || Problem::Variable(shown(text));
                let (name, after) = after.split_once('}').ok_or_else(unknown)?;
                pieces.push(variable(name).ok_or_else(unknown)?);
                rest = after;
            } else {
                pieces.push(Piece::Character(character));
                rest = rest.get(character.len_utf8()..).unwrap_or_default();
            }
        }
        Ok(Self(pieces))
    }

    /// The text, with the values of its variables; `None` where one has no value.
    fn tokens<'a>(&self, value: impl Fn(&ConditionKey) -> Option<&'a str>) -> Option<Vec<Token>> {
        let mut tokens = Vec::with_capacity(self.0.len());
        for piece in &self.0 {
            match piece {
                Piece::Character('*') => tokens.push(Token::Any),
                Piece::Character('?') => tokens.push(Token::One),
                Piece::Character(character) | Piece::Escaped(character) => {
                    tokens.push(Token::Character(*character));
                }
                Piece::Variable { key, default } => {
                    let text = value(key).or(default.as_deref())?;
                    tokens.extend(text.chars().map(Token::Character));
                }
            }
        }
        Some(tokens)
    }

    /// Compares the text, as far as the values of its variables are known. One that has no
    /// value is like nothing.
    pub(crate) fn compare(&self, values: &Values<'_>, is: impl FnOnce(&[Token]) -> bool) -> Truth {
        let unknown = |key| matches!(values(key), Value::Unknown | Value::Other);
        if self.variables().any(unknown) {
            return Truth::Maybe;
        }
        let value = |key: &ConditionKey| match values(key) {
            Value::Known([one]) => Some(one.as_str()),
            _ => None,
        };
        self.tokens(value).is_some_and(|tokens| is(&tokens)).into()
    }

    /// The values of the request that the text names.
    pub(crate) fn variables(&self) -> impl Iterator<Item = &ConditionKey> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Variable { key, .. } => Some(key),
            _ => None,
        })
    }

    /// Whether the text has a wildcard.
    pub(crate) fn has_wildcards(&self) -> bool {
        self.0
            .iter()
            .any(|piece| matches!(piece, Piece::Character('*' | '?')))
    }

    /// Whether every text matches.
    pub(crate) fn matches_all(&self) -> bool {
        !self.0.is_empty()
            && self
                .0
                .iter()
                .all(|piece| matches!(piece, Piece::Character('*')))
    }
}

fn variable(name: &str) -> Option<Piece> {
    if let "*" | "?" | "$" = name {
        return name.chars().next().map(Piece::Escaped);
    }
    let (key, default) = match name.split_once(',') {
        Some((key, default)) => {
            let default = default.trim().strip_prefix('\'')?.strip_suffix('\'')?;
            (key.trim(), Some(default.to_owned()))
        }
        None => (name, None),
    };
    let key = key.parse().ok()?;
    Some(Piece::Variable { key, default })
}

/// The tokens of a text whose wildcards are wildcards.
pub(crate) fn wildcards(text: &str) -> Vec<Token> {
    let token = |character| match character {
        '*' => Token::Any,
        '?' => Token::One,
        _ => Token::Character(character),
    };
    text.chars().map(token).collect()
}

/// Whether the text is the tokens', whose wildcards stand for themselves.
pub(crate) fn equals(tokens: &[Token], text: &str, same: impl Fn(char, char) -> bool) -> bool {
    let literal = tokens.iter().map(|token| match token {
        Token::Character(character) => *character,
        Token::One => '?',
        Token::Any => '*',
    });
    let mut characters = text.chars();
    let matches = literal
        .into_iter()
        .all(|wanted| characters.next().is_some_and(|found| same(wanted, found)));
    matches && characters.next().is_none()
}

/// Whether the text matches the tokens. The time is at worst the product of both lengths.
pub(crate) fn matches(tokens: &[Token], text: &str, same: impl Fn(char, char) -> bool) -> bool {
    let text: Vec<char> = text.chars().collect();
    let (mut at, mut from) = (0, 0);
    // Behind the last `*`, and what of the text it leaves over.
    let mut retry: Option<(usize, usize)> = None;
    while let Some(&found) = text.get(from) {
        match tokens.get(at) {
            Some(Token::Any) => {
                at += 1;
                retry = Some((at, from));
                continue;
            }
            Some(Token::One) => {
                (at, from) = (at + 1, from + 1);
                continue;
            }
            Some(&Token::Character(wanted)) if same(wanted, found) => {
                (at, from) = (at + 1, from + 1);
                continue;
            }
            _ => {}
        }
        let Some((behind, left)) = retry else {
            return false;
        };
        retry = Some((behind, left + 1));
        (at, from) = (behind, left + 1);
    }
    tokens.iter().skip(at).all(|token| *token == Token::Any)
}

pub(crate) fn exactly(a: char, b: char) -> bool {
    a == b
}

pub(crate) fn ignoring_case(a: char, b: char) -> bool {
    a == b || a.to_lowercase().eq(b.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_match_runs_and_single_characters() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("**", "abc", true),
            ("a*c", "abbc", true),
            ("a*c", "ac", true),
            ("a*c", "acb", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*ab*ab", "abab", true),
            ("*ab*ab", "ababa", false),
            ("é?", "éa", true),
        ] {
            assert_eq!(
                matches(&wildcards(pattern), text, exactly),
                expected,
                "{pattern} {text}"
            );
        }
        assert!(matches(
            &wildcards("KMS:dec*"),
            "kms:Decrypt",
            ignoring_case
        ));
        assert!(equals(&wildcards("a*"), "a*", exactly));
        assert!(!equals(&wildcards("a*"), "ab", exactly));
    }

    #[test]
    fn variables_are_replaced_and_their_values_have_no_wildcards() {
        let value = |key: &ConditionKey| (key.as_str() == "aws:username").then_some("a*");
        let tokens = |text| Template::parse(text, true).unwrap().tokens(value);
        assert!(matches(
            &tokens("x/${aws:UserName}/*").unwrap(),
            "x/a*/y",
            exactly
        ));
        assert!(!matches(
            &tokens("x/${aws:UserName}/*").unwrap(),
            "x/ab/y",
            exactly
        ));
        assert!(matches(&tokens("${*}${$}").unwrap(), "*$", exactly));
        assert_eq!(tokens("${aws:PrincipalTag/team}"), None);
        let default = tokens("${aws:PrincipalTag/team, 'none'}").unwrap();
        assert!(equals(&default, "none", exactly));
        for text in ["${", "${aws:UserName", "${no:such}", "${aws:UserName,x}"] {
            assert!(Template::parse(text, true).is_err(), "{text}");
            assert!(Template::parse(text, false).is_ok(), "{text}");
        }
    }
}
