//! Fields of JSON in log lines, found without changing anything around them.
//!
//! A line is looked at if it begins with `{` or `[`, as far as it is JSON; an
//! object may go on over several lines. The scanner takes more than JSON
//! (`NaN`, a comma too many), because what it does not take is not redacted. A
//! value that does not end is replaced up to the end of the text.

use std::borrow::Cow;

use memchr::memchr;

/// Values nested deeper are replaced, whatever their name.
const MAX_DEPTH: usize = 64;
/// What values are replaced with.
const REPLACEMENT: &[u8] = b"\"***\"";

/// Fields by name.
#[derive(Debug)]
pub(super) struct Fields(Vec<Vec<Box<[u8]>>>);

impl Fields {
    /// Each field is its name and the names around it, from inside outwards.
    pub(super) fn new<'a, N>(fields: impl IntoIterator<Item = N>) -> Self
    where
        N: Iterator<Item = &'a str>,
    {
        let names = |names: N| names.map(|name| name.as_bytes().into()).collect();
        Self(fields.into_iter().map(names).collect())
    }

    /// The text with the fields' values replaced; `None` if there are none.
    pub(super) fn replace(&self, text: &[u8]) -> Option<Vec<u8>> {
        let mut scanner = Scanner {
            text,
            position: 0,
            names: Vec::new(),
            fields: &self.0,
            replaced: Vec::new(),
            copied: 0,
        };
        scanner.run();
        if scanner.copied == 0 {
            return None;
        }
        let rest = text
            .get(scanner.copied..)
            .expect("the scanner stays in its text");
        scanner.replaced.extend_from_slice(rest);
        Some(scanner.replaced)
    }
}

struct Scanner<'a> {
    text: &'a [u8],
    position: usize,
    /// The names around the position, from outside inwards.
    names: Vec<Cow<'a, [u8]>>,
    fields: &'a [Vec<Box<[u8]>>],
    replaced: Vec<u8>,
    /// How much of the text is in `replaced` or left out there.
    copied: usize,
}

/// The text is not JSON from here on.
struct Stop;

impl<'a> Scanner<'a> {
    fn run(&mut self) {
        while self.position < self.text.len() {
            self.skip(|byte| byte.is_ascii_whitespace());
            let begun = self.position;
            if matches!(self.peek(), Some(b'{' | b'[')) {
                self.names.clear();
                if self.value(0).is_ok() {
                    // Another value may follow on the same line.
                    continue;
                }
                // Where it stopped, a line of its own may have begun.
                let passed = self
                    .text
                    .get(begun..self.position)
                    .expect("the scanner stays in its text");
                if let Some(last) = passed.iter().rposition(|&byte| byte == b'\n') {
                    self.position = begun + last + 1;
                    continue;
                }
            }
            let rest = self.rest();
            self.position += memchr(b'\n', rest).unwrap_or(rest.len());
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.position).copied()
    }

    fn rest(&self) -> &'a [u8] {
        self.text
            .get(self.position..)
            .expect("the scanner stays in its text")
    }

    fn skip(&mut self, passes: impl Fn(u8) -> bool) {
        let rest = self.rest();
        let end = rest.iter().position(|&byte| !passes(byte));
        self.position += end.unwrap_or(rest.len());
    }

    fn skip_space(&mut self) {
        self.skip(|byte| byte.is_ascii_whitespace());
    }

    /// Passes a value, and replaces what is named in it.
    fn value(&mut self, depth: usize) -> Result<(), Stop> {
        self.skip_space();
        match self.peek() {
            Some(b'{' | b'[') if depth == MAX_DEPTH => self.replace(),
            Some(b'{') => self.items(depth, b'}', Self::member),
            Some(b'[') => self.items(depth, b']', Self::value),
            Some(b'"') => self.string().map(drop),
            _ => {
                let begun = self.position;
                self.skip(|byte| !byte.is_ascii_whitespace() && !b",:{}[]\"".contains(&byte));
                if self.position == begun {
                    Err(Stop)
                } else {
                    Ok(())
                }
            }
        }
    }

    /// Passes the items of an object or array.
    fn items(
        &mut self,
        depth: usize,
        end: u8,
        item: impl Fn(&mut Self, usize) -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        self.position += 1;
        loop {
            self.skip_space();
            if self.peek() == Some(end) {
                self.position += 1;
                return Ok(());
            }
            item(self, depth + 1)?;
            self.skip_space();
            match self.peek() {
                Some(b',') => self.position += 1,
                Some(byte) if byte == end => {}
                _ => return Err(Stop),
            }
        }
    }

    fn member(&mut self, depth: usize) -> Result<(), Stop> {
        if self.peek() != Some(b'"') {
            return Err(Stop);
        }
        let name = unescape(self.string()?);
        self.skip_space();
        if self.peek() != Some(b':') {
            return Err(Stop);
        }
        self.position += 1;
        self.names.push(name);
        let result = if self.is_named() {
            self.skip_space();
            self.replace()
        } else {
            self.value(depth)
        };
        self.names.pop();
        result
    }

    fn is_named(&self) -> bool {
        self.fields.iter().any(|field| {
            let mut around = self.names.iter().rev();
            field
                .iter()
                .all(|name| around.next().is_some_and(|around| **around == **name))
        })
    }

    /// Passes a string, and gives what is between its quotes.
    fn string(&mut self) -> Result<&'a [u8], Stop> {
        self.position += 1;
        let rest = self.rest();
        let mut is_escaped = false;
        for (length, &byte) in rest.iter().enumerate() {
            match byte {
                b'\n' => {
                    self.position += length;
                    return Err(Stop);
                }
                _ if is_escaped => is_escaped = false,
                b'\\' => is_escaped = true,
                b'"' => {
                    self.position += length + 1;
                    return Ok(rest.get(..length).expect("the scanner stays in its text"));
                }
                _ => {}
            }
        }
        self.position = self.text.len();
        Err(Stop)
    }

    /// Passes a value and replaces it.
    fn replace(&mut self) -> Result<(), Stop> {
        let begun = self.position;
        let result = match self.peek() {
            Some(b'"') => self.string().map(drop),
            Some(b'{' | b'[') => self.pass_nested(),
            _ => {
                self.skip(|byte| !b",}]\n".contains(&byte));
                Ok(())
            }
        };
        // A line that is looked at again may have been replaced in part.
        if begun >= self.copied {
            let before = self
                .text
                .get(self.copied..begun)
                .expect("the scanner stays in its text");
            self.replaced.extend_from_slice(before);
            self.replaced.extend_from_slice(REPLACEMENT);
        }
        self.copied = self.copied.max(self.position);
        result
    }

    /// Passes an object or array, whatever is in it.
    fn pass_nested(&mut self) -> Result<(), Stop> {
        let mut depth = 0_usize;
        while let Some(byte) = self.peek() {
            match byte {
                b'"' => {
                    // A string that does not end, ends with its line here.
                    let _ = self.string();
                    continue;
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth -= 1,
                _ => {}
            }
            self.position += 1;
            if depth == 0 {
                return Ok(());
            }
        }
        Err(Stop)
    }
}

/// A name without its escapes; those that JSON does not know stay.
fn unescape(name: &[u8]) -> Cow<'_, [u8]> {
    if memchr(b'\\', name).is_none() {
        return Cow::Borrowed(name);
    }
    // The parser's own rules, but for bytes that are not UTF-8, which no name in
    // a manifest has.
    let quoted = [b"\"", name, b"\""].concat();
    match serde_json::from_slice::<String>(&quoted) {
        Ok(name) => Cow::Owned(name.into_bytes()),
        Err(_) => Cow::Borrowed(name),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn fields(fields: &[&str]) -> Fields {
        Fields::new(fields.iter().map(|field| field.rsplit('.')))
    }

    fn replaced(names: &[&str], text: &str) -> String {
        let replaced = fields(names).replace(text.as_bytes());
        replaced.map_or_else(|| text.to_owned(), |text| String::from_utf8(text).unwrap())
    }

    #[test]
    fn values_are_replaced_and_nothing_else_changes() {
        let names = ["password", "card.number"];
        for (text, expected) in [
            (r#"{"password":"x"}"#, r#"{"password":"***"}"#),
            (
                r#"  { "a" : 1.50 , "password" : "x\"y" , "b":[ ]}  "#,
                r#"  { "a" : 1.50 , "password" : "***" , "b":[ ]}  "#,
            ),
            (r#"{"password":12}"#, r#"{"password":"***"}"#),
            (r#"{"password":null,"a":1}"#, r#"{"password":"***","a":1}"#),
            (
                r#"{"password":{"a":["}"]},"b":2}"#,
                r#"{"password":"***","b":2}"#,
            ),
            // At any depth, in arrays, twice, whatever is written around it.
            (
                r#"{"user":{"password":"x"},"all":[{"password":"y"}]}"#,
                r#"{"user":{"password":"***"},"all":[{"password":"***"}]}"#,
            ),
            (
                r#"{"password":"x","password":"y"}"#,
                r#"{"password":"***","password":"***"}"#,
            ),
            (r#"[{"password":"x"}]"#, r#"[{"password":"***"}]"#),
            (
                r#"{"password":"x"}{"password":"y"} {"password":"z"}"#,
                r#"{"password":"***"}{"password":"***"} {"password":"***"}"#,
            ),
            // A path.
            (r#"{"card":{"number":1}}"#, r#"{"card":{"number":"***"}}"#),
            (
                r#"{"a":{"card":[{"x":1,"number":1}]}}"#,
                r#"{"a":{"card":[{"x":1,"number":"***"}]}}"#,
            ),
            (r#"{"number":1,"card":2}"#, r#"{"number":1,"card":2}"#),
            (
                r#"{"card":{"a":{"number":1}}}"#,
                r#"{"card":{"a":{"number":1}}}"#,
            ),
            // Names however they are written.
            (r#"{"pass\u0077ord":"x"}"#, r#"{"pass\u0077ord":"***"}"#),
            (r#"{"Password":"x"}"#, r#"{"Password":"x"}"#),
            // More than JSON.
            (
                r#"{"a":NaN,"password":"x",}"#,
                r#"{"a":NaN,"password":"***",}"#,
            ),
            (r#"{"password":x y,"a":1}"#, r#"{"password":"***","a":1}"#),
            // A text in JSON is not JSON.
            (
                r#"{"a":"\"password\":\"x\""}"#,
                r#"{"a":"\"password\":\"x\""}"#,
            ),
        ] {
            assert_eq!(replaced(&names, text), expected);
        }
    }

    #[test]
    fn what_is_not_json_stays_as_it_is() {
        for text in [
            "",
            "password",
            r#"[INFO] "password":"x""#,
            r#"[2026-01-01 12:00] {"password":"x"}"#,
            "{",
            r#"{password:"x"}"#,
            r"{'password':'x'}",
            r#"INFO {"password":"x"}"#,
            r#"{"a" "password":"x"}"#,
        ] {
            assert_eq!(replaced(&["password"], text), text);
        }
    }

    #[test]
    fn values_that_do_not_end_are_replaced_to_the_end() {
        for text in [
            r#"{"password":"secre"#,
            r#"{"password":"secret\"#,
            r#"{"password":{"a":"secret"#,
            r#"{"password":["secret"}"#,
            r#"{"password":secret"#,
        ] {
            assert_eq!(replaced(&["password"], text), r#"{"password":"***""#);
        }
    }

    #[test]
    fn each_line_of_a_record_is_looked_at() {
        for (text, expected) in [
            (
                "begin\n{\"password\":\"x\"}\nend",
                "begin\n{\"password\":\"***\"}\nend",
            ),
            (
                "{\n  \"password\": \"x\",\n  \"a\": 1\n}",
                "{\n  \"password\": \"***\",\n  \"a\": 1\n}",
            ),
            ("{\n{\"password\":\"x\"}", "{\n{\"password\":\"***\"}"),
            (
                "{\"a\nb\n{\"password\":\"x\"}",
                "{\"a\nb\n{\"password\":\"***\"}",
            ),
            (
                "[\n{\"password\":\"x\"} y\n{\"password\":\"z\"}",
                "[\n{\"password\":\"***\"} y\n{\"password\":\"***\"}",
            ),
        ] {
            assert_eq!(replaced(&["password"], text), expected);
        }
    }

    #[test]
    fn what_is_nested_too_deep_is_replaced() {
        let nest = |depth: usize| format!("{}secret{}", "[".repeat(depth), "]".repeat(depth));
        assert!(replaced(&["password"], &nest(MAX_DEPTH)).contains("secret"));
        let deeper = replaced(&["password"], &nest(MAX_DEPTH + 1));
        assert!(!deeper.contains("secret"), "{deeper}");
        let opened = "{\"a\":".repeat(100_000);
        assert!(replaced(&["password"], &opened).len() < 1000);
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,12}".prop_map(Value::from),
        ];
        let name = prop_oneof![
            Just("password".to_owned()),
            Just("card".to_owned()),
            Just("number".to_owned()),
            ".{0,4}"
        ];
        leaf.prop_recursive(5, 40, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::vec((name.clone(), inner), 0..5)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    /// What the scanner does, by way of the parser.
    fn model(value: &mut Value, around: Option<&str>) {
        match value {
            Value::Object(members) => {
                for (name, value) in members {
                    if name == "password" || (name == "number" && around == Some("card")) {
                        *value = Value::from("***");
                    } else {
                        model(value, Some(name));
                    }
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| model(item, around)),
            _ => {}
        }
    }

    proptest! {
        #[test]
        fn valid_json_is_replaced_as_a_parser_would(value in value(), pretty: bool) {
            let text = if pretty {
                serde_json::to_string_pretty(&value)
            } else {
                serde_json::to_string(&value)
            }
            .unwrap();
            let replaced = replaced(&["password", "card.number"], &text);
            let mut expected = value.clone();
            if value.is_object() || value.is_array() {
                model(&mut expected, None);
            }
            prop_assert_eq!(serde_json::from_str::<Value>(&replaced).unwrap(), expected);
        }

        #[test]
        fn a_line_cut_anywhere_lets_no_value_through(
            before in "[a-z]{0,5}",
            secret in "[A-Z]{8,20}",
            cut: prop::sample::Index,
        ) {
            let text = format!(r#"{{"{before}":1,"password":"{secret}","after":[1,2]}}"#);
            let text = &text[..cut.index(text.len() + 1)];
            prop_assert!(!replaced(&["password"], text).contains(&secret[..1]));
        }

        #[test]
        fn any_bytes_are_no_panic(text in prop::collection::vec(
            prop_oneof![3 => prop::sample::select(&b"{}[]\",:\\\n pu"[..]), 1 => any::<u8>()], 0..80)
        ) {
            let fields = fields(&["p", "u.p"]);
            if let Some(replaced) = fields.replace(&text) {
                prop_assert!(replaced.len() <= 4 * text.len() + REPLACEMENT.len());
            }
        }
    }
}
