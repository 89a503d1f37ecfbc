//! The little XML that S3 and EC2 answer.

use xmlparser::{ElementEnd, Token, Tokenizer};

use crate::error::one_line;

/// How deep elements may lie in each other.
const MAX_DEPTH: usize = 32;

/// An element without its attributes, which these services do not use.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Element {
    pub(crate) name: String,
    pub(crate) text: String,
    pub(crate) children: Vec<Element>,
}

impl Element {
    /// The first child of that name.
    pub(crate) fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.name == name)
    }

    /// The text of the first child of that name.
    pub(crate) fn text_of(&self, name: &str) -> Option<&str> {
        self.child(name).map(|child| child.text.as_str())
    }

    /// The children `item` of the child of that name.
    pub(crate) fn items(&self, name: &str) -> impl Iterator<Item = &Self> {
        let list = self.child(name).map_or(&[][..], |list| &list.children);
        list.iter().filter(|child| child.name == "item")
    }
}

/// Reads a document, and says in words, in one line, what is wrong with it.
pub(crate) fn parse(bytes: &[u8]) -> Result<Element, String> {
    read(bytes).map_err(|reason| one_line(&reason))
}

fn read(bytes: &[u8]) -> Result<Element, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    let mut open: Vec<Element> = Vec::new();
    let mut root = None;
    for token in Tokenizer::from(text) {
        match token.map_err(|error| error.to_string())? {
            Token::ElementStart { local, .. } => {
                if open.len() >= MAX_DEPTH {
                    return Err(format!("elements lie more than {MAX_DEPTH} deep"));
                }
                open.push(Element {
                    name: local.as_str().to_owned(),
                    ..Element::default()
                });
            }
            Token::ElementEnd { end, .. } => {
                if let ElementEnd::Close(_, name) = end
                    && open.last().is_none_or(|last| last.name != name.as_str())
                {
                    return Err(format!("`{name}` ends, but has not begun"));
                }
                if end == ElementEnd::Open {
                    continue;
                }
                let Some(done) = open.pop() else {
                    return Err("an element ends that has not begun".to_owned());
                };
                match open.last_mut() {
                    Some(parent) => parent.children.push(done),
                    None => root = Some(done),
                }
            }
            Token::Text { text } => {
                if let Some(element) = open.last_mut() {
                    element.text += &unescape(text.as_str())?;
                }
            }
            Token::Cdata { text, .. } => {
                if let Some(element) = open.last_mut() {
                    element.text += text.as_str();
                }
            }
            Token::DtdStart { .. } | Token::EmptyDtd { .. } => {
                return Err("there is a document type".to_owned());
            }
            _ => {}
        }
    }
    match root {
        Some(root) if open.is_empty() => Ok(root),
        _ => Err("the document has no end".to_owned()),
    }
}

/// The code and the message of a refusal: S3 has `Error`, EC2 has
/// `Response/Errors/Error`.
pub(crate) fn error(body: &[u8]) -> (Option<String>, Option<String>) {
    let Ok(root) = parse(body) else {
        return (None, None);
    };
    let error = match root.child("Errors") {
        Some(errors) => errors.child("Error"),
        None => root.child("Error"),
    };
    let error = error.unwrap_or(&root);
    let text = |name| error.text_of(name).map(str::to_owned);
    (text("Code"), text("Message"))
}

fn unescape(text: &str) -> Result<String, String> {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        plain += before;
        let (entity, after) = after
            .split_once(';')
            .ok_or_else(|| "an entity has no end".to_owned())?;
        plain.push(character(entity).ok_or_else(|| format!("unknown entity `{entity}`"))?);
        rest = after;
    }
    plain += rest;
    Ok(plain)
}

fn character(entity: &str) -> Option<char> {
    match entity {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => {
            let number = entity.strip_prefix('#')?;
            let code = match number.strip_prefix('x') {
                Some(digits) => u32::from_str_radix(digits, 16).ok()?,
                None => number.parse().ok()?,
            };
            char::from_u32(code)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_of_both_kinds_are_read() {
        let s3 = b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>NoSuchKey</Code><Message>no &lt;key&gt; &#233;</Message></Error>";
        assert_eq!(
            error(s3),
            (
                Some("NoSuchKey".to_owned()),
                Some("no <key> \u{e9}".to_owned())
            )
        );
        let ec2 = b"<Response><Errors><Error><Code>RequestLimitExceeded</Code><Message>m</Message></Error></Errors></Response>";
        assert_eq!(error(ec2).0.as_deref(), Some("RequestLimitExceeded"));
        assert_eq!(error(b"<Error>"), (None, None));
    }

    #[test]
    fn what_is_no_document_is_refused() {
        for bad in [
            "",
            "text",
            "<a>",
            "</a>",
            "<a></b>",
            "<a>&x;</a>",
            "<a>&amp</a>",
            "<!DOCTYPE a [<!ENTITY b \"c\">]><a/>",
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
        let error = parse(b"<a>&\n;</a>").unwrap_err();
        assert_eq!(error, "unknown entity ` `");
        assert!(parse("<a>".repeat(1000).as_bytes()).is_err());
        assert!(parse(&[0xff]).is_err());
    }

    #[test]
    fn lists_are_their_items() {
        let root = parse(b"<r><set><item><id>1</id></item><x/><item><id>2</id></item></set></r>");
        let root = root.unwrap();
        let ids: Vec<_> = root
            .items("set")
            .filter_map(|item| item.text_of("id"))
            .collect();
        assert_eq!(ids, ["1", "2"]);
        assert_eq!(root.items("none").count(), 0);
    }
}
