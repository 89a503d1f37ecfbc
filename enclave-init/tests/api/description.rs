//! The API's description for programs, held against what is answered.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

/// `docs/local-api.json`.
pub(crate) struct Description(Value);

impl Description {
    pub(crate) fn read() -> Self {
        let text = std::fs::read_to_string("../docs/local-api.json").unwrap();
        Self(serde_json::from_str(&text).unwrap())
    }

    /// Each operation: its path, its method as it is sent, and the rest.
    pub(crate) fn operations(&self) -> impl Iterator<Item = (&str, String, &Value)> {
        let paths = self.0["paths"].as_object().unwrap();
        paths.iter().flat_map(|(path, methods)| {
            let methods = methods.as_object().unwrap();
            methods
                .iter()
                .map(|(method, operation)| (path.as_str(), method.to_uppercase(), operation))
        })
    }

    /// Panics if an answer to one of the API's operations is not as the operation says: a
    /// status that it lists, in JSON with the fields that are named and the values that these
    /// may have, a refusal with a code that belongs to the status.
    pub(crate) fn check(&self, method: &str, target: &str, status: u16, body: &[u8]) {
        let Some(response) = self.response(method, target, status) else {
            return;
        };
        let Some(media) = response["content"].get("application/json") else {
            return;
        };
        let place = format!("{method} {target}: status {status}");
        let body: Value = serde_json::from_slice(body).unwrap();
        assert!(self.is_like(&body, &media["schema"]), "{place}: {body}");
        if let Some(codes) = media["schema"]["properties"]["code"]["enum"].as_array() {
            assert!(codes.contains(&body["code"]), "{place}: {body}");
        }
    }

    /// Panics if an answer has another content type than the operation says, or one where
    /// there is nothing to come.
    pub(crate) fn check_form(&self, method: &str, target: &str, status: u16, form: Option<&str>) {
        let response = self.response(method, target, status).unwrap();
        let content = response["content"].as_object();
        let forms: Vec<_> = content
            .into_iter()
            .flatten()
            .map(|(form, _)| form)
            .collect();
        let forms: Vec<_> = forms.into_iter().map(String::as_str).collect();
        assert_eq!(forms, Vec::from_iter(form), "{method} {target}: {status}");
    }

    /// How the operation at a target describes answers with this status; none if there is no
    /// such operation.
    fn response(&self, method: &str, target: &str, status: u16) -> Option<&Value> {
        let path = target.split('?').next().unwrap();
        let mut operations = self.operations();
        let (_, _, operation) =
            operations.find(|(described, of, _)| *of == method && fits(described, path))?;
        let responses = &operation["responses"];
        let response = match &responses[status.to_string()] {
            Value::Null => &responses["default"],
            response => response,
        };
        let response = self.resolved(response);
        let is_described = response.is_object();
        assert!(
            is_described,
            "{method} {target}: status {status} is not described"
        );
        Some(response)
    }

    /// Whether a value is one of a schema. What the schema says in a way that this does not
    /// know is a failure.
    fn is_like(&self, value: &Value, schema: &Value) -> bool {
        let schema = self.resolved(schema).as_object().unwrap();
        schema.iter().all(|(key, said)| match &**key {
            "$ref" | "description" | "example" | "default" | "title" => true,
            "oneOf" => {
                let fitting = said.as_array().unwrap().iter();
                fitting.filter(|schema| self.is_like(value, schema)).count() == 1
            }
            "type" => match said.as_array() {
                Some(types) => types.iter().any(|name| is_of(value, name)),
                None => is_of(value, said),
            },
            "const" => value == said,
            "enum" => said.as_array().unwrap().contains(value),
            "minimum" => value
                .as_i64()
                .is_none_or(|number| number >= said.as_i64().unwrap()),
            "maximum" => value
                .as_i64()
                .is_none_or(|number| number <= said.as_i64().unwrap()),
            "contentEncoding" => {
                assert_eq!(said, "base64");
                let text = value.as_str();
                text.is_none_or(|text| STANDARD.decode(text).is_ok())
            }
            "pattern" => {
                assert_eq!(said, "^[0-9a-f]{96}$");
                value.as_str().is_none_or(|text| {
                    text.len() == 96 && text.bytes().all(|byte| b"0123456789abcdef".contains(&byte))
                })
            }
            "format" => {
                assert_eq!(said, "date-time");
                value.as_str().is_none_or(|text| text.ends_with('Z'))
            }
            "minItems" | "maxItems" => value.as_array().is_none_or(|items| {
                let limit = said.as_u64().unwrap().try_into().unwrap();
                if key == "minItems" {
                    items.len() >= limit
                } else {
                    items.len() <= limit
                }
            }),
            "items" => {
                let items = value.as_array();
                items.is_none_or(|items| items.iter().all(|item| self.is_like(item, said)))
            }
            "required" => value.as_object().is_none_or(|fields| {
                let mut names = said.as_array().unwrap().iter();
                names.all(|name| fields.contains_key(name.as_str().unwrap()))
            }),
            "properties" => value.as_object().is_none_or(|fields| {
                fields.iter().all(|(name, value)| {
                    let schema = said.get(name);
                    schema.is_some_and(|schema| self.is_like(value, schema))
                })
            }),
            "additionalProperties" => match (said, value.as_object()) {
                (Value::Object(_), Some(fields)) => {
                    fields.values().all(|value| self.is_like(value, said))
                }
                // Fields that are not named are in no answer.
                _ => true,
            },
            other => panic!("nothing is known of `{other}` in a schema"),
        })
    }

    fn resolved<'a>(&'a self, value: &'a Value) -> &'a Value {
        match value["$ref"].as_str() {
            Some(name) => self.0.pointer(name.trim_start_matches('#')).unwrap(),
            None => value,
        }
    }
}

/// Whether a value is of a type of JSON Schema's.
fn is_of(value: &Value, name: &Value) -> bool {
    match name.as_str().unwrap() {
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "boolean" => value.is_boolean(),
        "object" => value.is_object(),
        "array" => value.is_array(),
        "null" => value.is_null(),
        other => panic!("nothing is known of the type `{other}`"),
    }
}

/// Whether a path is one of those that a template stands for.
fn fits(template: &str, path: &str) -> bool {
    let (template, path): (Vec<_>, Vec<_>) =
        (template.split('/').collect(), path.split('/').collect());
    template.len() == path.len()
        && template
            .iter()
            .zip(path)
            .all(|(wanted, part)| wanted.starts_with('{') || *wanted == part)
}
