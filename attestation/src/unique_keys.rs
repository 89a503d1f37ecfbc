//! JSON in which no key stands twice. RFC 8259 leaves it to the reader which of two values
//! counts, so a policy with a key twice might demand less than its writer believes.

use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// Characters of a key that are shown.
const MAX_SHOWN: usize = 64;

/// Checks that the text is JSON and that none of its objects has a key twice.
pub(crate) fn check(text: &str) -> Result<(), serde_json::Error> {
    serde_json::from_str(text).map(|Unique| ())
}

/// Any value, in which no key stands twice.
struct Unique;

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Keys)
    }
}

struct Keys;

impl<'de> Visitor<'de> for Keys {
    type Value = Unique;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Unique, A::Error> {
        let mut keys = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            map.next_value::<Unique>()?;
            if keys.contains(&key) {
                let shown: String = key.chars().take(MAX_SHOWN).collect();
                return Err(A::Error::custom(format!(
                    "the key {shown:?} is there twice: remove one of the two"
                )));
            }
            keys.insert(key);
        }
        Ok(Unique)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Unique, A::Error> {
        while values.next_element::<Unique>()?.is_some() {}
        Ok(Unique)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_str<E>(self, _: &str) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_unit<E>(self) -> Result<Unique, E> {
        Ok(Unique)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_stands_twice_is_found_at_any_depth() {
        for text in [
            r#"{"a": 1, "a": 1}"#,
            r#"{"a": 1, "b": null, "a": [true]}"#,
            r#"{"\u0061": 1, "a": 2}"#,
            r#"[1.5, "x", {"b": [[{"c": {}, "c": -1}]]}]"#,
        ] {
            let error = check(text).unwrap_err().to_string();
            assert!(error.contains("is there twice"), "{text}: {error}");
            assert!(error.contains("line 1"), "{error}");
        }
        for text in [
            r#"{"a": {"a": 1}, "b": [{"a": 1}, {"a": 2}]}"#,
            "null",
            "{}",
        ] {
            assert!(check(text).is_ok(), "{text}");
        }
        for text in ["", "{", "{} {}", "{\"a\": }"] {
            assert!(check(text).is_err(), "{text}");
        }
        // As deep as a reader follows, and no deeper.
        assert!(check(&"[".repeat(100_000)).is_err());
    }
}
