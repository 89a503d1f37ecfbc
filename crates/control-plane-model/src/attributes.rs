//! DynamoDB's attribute values: from stream records, and to and from plain JSON.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::{Map, Number, Value};

/// An item's attributes by name.
pub type Attributes = HashMap<String, AttributeValue>;

/// How deep a value of a stream record may be nested, as DynamoDB has it.
const MAX_DEPTH: usize = 32;

/// A text.
pub fn text(value: impl Into<String>) -> AttributeValue {
    AttributeValue::S(value.into())
}

/// A number.
pub fn number(value: u64) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

/// The attribute as a text, if it is one.
pub fn get_text(attributes: &Attributes, name: &str) -> Option<String> {
    attributes.get(name)?.as_s().ok().cloned()
}

/// The attribute as a whole number, if it is one.
pub fn get_number(attributes: &Attributes, name: &str) -> Option<u64> {
    attributes.get(name)?.as_n().ok()?.parse().ok()
}

/// The attributes in DynamoDB's JSON, as stream records have them.
pub fn from_stream(value: &Value) -> Result<Attributes, String> {
    let map = value.as_object().ok_or("it is no map of attributes")?;
    map.iter()
        .map(|(name, value)| {
            let value = value_from_stream(value, 0).map_err(|why| format!("{name}: {why}"))?;
            Ok((name.clone(), value))
        })
        .collect()
}

fn value_from_stream(value: &Value, depth: usize) -> Result<AttributeValue, String> {
    if depth > MAX_DEPTH {
        return Err(format!("it is nested deeper than {MAX_DEPTH} levels"));
    }
    let map = value.as_object().ok_or("it has no type")?;
    let (Some((kind, value)), 1) = (map.iter().next(), map.len()) else {
        return Err("it has not exactly one type".to_owned());
    };
    let wrong = || format!("it is not a value of the type {kind}");
    let string = || value.as_str().map(str::to_owned).ok_or_else(wrong);
    let strings = || {
        let list = value.as_array().ok_or_else(wrong)?;
        list.iter()
            .map(|entry| entry.as_str().map(str::to_owned).ok_or_else(wrong))
            .collect::<Result<Vec<_>, _>>()
    };
    Ok(match kind.as_str() {
        // Nothing here is bytes; their base64 is as good.
        "S" | "B" => AttributeValue::S(string()?),
        "N" => AttributeValue::N(string()?),
        "BOOL" => AttributeValue::Bool(value.as_bool().ok_or_else(wrong)?),
        "NULL" => AttributeValue::Null(true),
        "SS" | "BS" => AttributeValue::Ss(strings()?),
        "NS" => AttributeValue::Ns(strings()?),
        "L" => {
            let list = value.as_array().ok_or_else(wrong)?;
            let values = list.iter().map(|entry| value_from_stream(entry, depth + 1));
            AttributeValue::L(values.collect::<Result<_, _>>()?)
        }
        "M" => {
            let map = value.as_object().ok_or_else(wrong)?;
            let values = map.iter().map(|(name, value)| {
                Ok::<_, String>((name.clone(), value_from_stream(value, depth + 1)?))
            });
            AttributeValue::M(values.collect::<Result<_, _>>()?)
        }
        other => return Err(format!("{other:?} is no type")),
    })
}

/// A value as plain JSON. A number that JSON's have no room for is a text.
pub fn to_json(value: &AttributeValue) -> Value {
    match value {
        AttributeValue::S(text) => Value::from(text.as_str()),
        AttributeValue::N(number) => number
            .parse::<Number>()
            .map_or_else(|_| Value::from(number.as_str()), Value::Number),
        AttributeValue::Bool(value) => Value::from(*value),
        AttributeValue::Ss(values) | AttributeValue::Ns(values) => Value::from(values.as_slice()),
        AttributeValue::L(values) => values.iter().map(to_json).collect(),
        AttributeValue::M(values) => values
            .iter()
            .map(|(name, value)| (name.clone(), to_json(value)))
            .collect::<Map<_, _>>()
            .into(),
        _ => Value::Null,
    }
}

/// Plain JSON as a value.
pub fn from_json(value: &Value) -> AttributeValue {
    match value {
        Value::Null => AttributeValue::Null(true),
        Value::Bool(value) => AttributeValue::Bool(*value),
        Value::Number(number) => AttributeValue::N(number.to_string()),
        Value::String(text) => AttributeValue::S(text.clone()),
        Value::Array(values) => AttributeValue::L(values.iter().map(from_json).collect()),
        Value::Object(values) => AttributeValue::M(
            values
                .iter()
                .map(|(name, value)| (name.clone(), from_json(value)))
                .collect(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_records_values_are_read() {
        let attributes = from_stream(&json!({
            "id": {"S": "a"},
            "generation": {"N": "3"},
            "providerConfig": {"M": {"cpuCount": {"N": "2"}, "exposePorts": {"L": [{"S": "80"}]},
                "enableDebug": {"BOOL": false}, "nothing": {"NULL": true}}},
        }))
        .unwrap();
        assert_eq!(get_text(&attributes, "id").as_deref(), Some("a"));
        assert_eq!(get_number(&attributes, "generation"), Some(3));
        assert_eq!(
            to_json(&attributes["providerConfig"]),
            json!({"cpuCount": 2, "exposePorts": ["80"], "enableDebug": false, "nothing": null})
        );
    }

    #[test]
    fn what_is_no_value_says_where() {
        for (value, part) in [
            (json!([]), "no map"),
            (json!({"id": "a"}), "id: it has no type"),
            (
                json!({"id": {"S": 1}}),
                "id: it is not a value of the type S",
            ),
            (json!({"id": {"X": "a"}}), "\"X\" is no type"),
            (json!({"id": {"S": "a", "N": "1"}}), "exactly one"),
        ] {
            let why = from_stream(&value).unwrap_err();
            assert!(why.contains(part), "{why}");
        }
        let mut deep = json!({"S": "a"});
        for _ in 0..40 {
            deep = json!({"L": [deep]});
        }
        assert!(
            from_stream(&json!({"id": deep}))
                .unwrap_err()
                .contains("deeper")
        );
    }
}
