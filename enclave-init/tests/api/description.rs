//! The API's description for programs, held against what is answered.

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
    /// status that it lists, in JSON with the fields that are named, a refusal with a code that
    /// belongs to the status.
    pub(crate) fn check(&self, method: &str, target: &str, status: u16, body: &[u8]) {
        let path = target.split('?').next().unwrap();
        let mut operations = self.operations();
        let operation =
            operations.find(|(described, of, _)| *of == method && fits(described, path));
        let Some((_, _, operation)) = operation else {
            return;
        };
        let responses = &operation["responses"];
        let response = match &responses[status.to_string()] {
            Value::Null => &responses["default"],
            response => response,
        };
        let response = self.resolved(response);
        let place = format!("{method} {target}: status {status}");
        assert!(response.is_object(), "{place} is not described");
        let Some(media) = response["content"].get("application/json") else {
            return;
        };
        let body: Value = serde_json::from_slice(body).unwrap();
        assert!(self.is_like(&body, &media["schema"]), "{place}: {body}");
        if let Some(codes) = media["schema"]["properties"]["code"]["enum"].as_array() {
            assert!(codes.contains(&body["code"]), "{place}: {body}");
        }
    }

    /// Whether an object has the required fields of a schema, and no other than it has.
    fn is_like(&self, object: &Value, schema: &Value) -> bool {
        let schema = self.resolved(schema);
        if let Some(either) = schema["oneOf"].as_array() {
            return either.iter().any(|schema| self.is_like(object, schema));
        }
        let properties = schema["properties"].as_object().unwrap();
        let required = schema["required"].as_array().unwrap();
        let mut required = required.iter().map(|name| name.as_str().unwrap());
        let fields = object.as_object().unwrap();
        required.all(|name| fields.contains_key(name))
            && fields.iter().all(|(name, value)| {
                let allowed = properties.get(name).map(|schema| &schema["enum"]);
                allowed.is_some_and(|allowed| {
                    let allowed = allowed.as_array();
                    allowed.is_none_or(|allowed| allowed.contains(value))
                })
            })
    }

    fn resolved<'a>(&'a self, value: &'a Value) -> &'a Value {
        match value["$ref"].as_str() {
            Some(name) => self.0.pointer(name.trim_start_matches('#')).unwrap(),
            None => value,
        }
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
