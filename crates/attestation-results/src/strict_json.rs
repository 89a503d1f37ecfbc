//! JSON in which every name of an object stands once.
//!
//! Of two members with one name each reader takes the one that it likes (RFC 8259,
//! section 4), and a result must not mean one thing here and another elsewhere.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Longest reason, in characters.
const MAX_REASON: usize = 300;

/// A value without duplicate names, however deep; `serde_json` limits the depth.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Self)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom("a number is out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(Strict(item)) = items.next_element()? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            if object.contains_key(&name) {
                return Err(A::Error::custom(format!("`{name}` stands there twice")));
            }
            let Strict(value) = members.next_value()?;
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}

/// Reads a value; whoever calls has limited the size. The reason is one line.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let value =
        serde_json::from_slice(bytes).and_then(|Strict(value)| serde_json::from_value(value));
    value.map_err(|error| plain_text::plain_start(&error.to_string(), MAX_REASON))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stands_once_at_any_depth() {
        for text in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"[{"b":{"a":1,"c":[],"a":null}}]"#,
        ] {
            let error = parse::<Value>(text.as_bytes()).unwrap_err();
            assert!(error.contains("`a` stands there twice"), "{error}");
        }
        let text = r#"{"a":{"a":[1,-1,1.5,true,null,"x"]},"b":{"a":{}}}"#;
        let expected: Value = serde_json::from_str(text).unwrap();
        assert_eq!(parse::<Value>(text.as_bytes()), Ok(expected));
    }

    #[test]
    fn what_is_no_json_or_too_deep_is_refused_in_one_line() {
        let deep = "[".repeat(1000);
        for text in ["", "{", "{} {}", "nul", &deep, "{\"\u{1b}\n\":1,\"a\":}"] {
            let error = parse::<Value>(text.as_bytes()).unwrap_err();
            assert!(!error.contains(char::is_control), "{error:?}");
        }
    }
}
