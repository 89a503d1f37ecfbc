//! The API's description, as far as clients are made of it: what it does not use, this does
//! not read, and what it does not know is an error.

use anyhow::{Context, bail};
use serde_json::Value;

/// What clients offer.
pub(super) struct Description {
    /// In the order of their paths.
    pub(super) operations: Vec<Operation>,
    pub(super) schemas: Vec<Schema>,
    /// Codes of refusals, and what each means.
    pub(super) codes: Vec<(String, String)>,
}

pub(super) struct Operation {
    /// In camel case.
    pub(super) name: String,
    pub(super) method: String,
    /// With parameters in braces.
    pub(super) path: String,
    pub(super) summary: String,
    pub(super) description: String,
    pub(super) in_path: Vec<Field>,
    pub(super) in_query: Vec<Field>,
    /// The name of the schema of what is sent.
    pub(super) body: Option<String>,
    pub(super) answer: Answer,
    /// The codes of its own, without those of every operation.
    pub(super) codes: Vec<String>,
}

pub(super) enum Answer {
    Nothing,
    Bytes,
    /// The name of its schema.
    Object(String),
}

pub(super) struct Schema {
    pub(super) name: String,
    pub(super) description: String,
    pub(super) shape: Shape,
}

pub(super) enum Shape {
    Object(Vec<Field>),
    /// One of two objects, told apart by this field of theirs.
    Either {
        by: String,
        yes: String,
        no: String,
    },
}

pub(super) struct Field {
    /// As it is sent.
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) is_required: bool,
    pub(super) is_nullable: bool,
    pub(super) description: String,
}

pub(super) enum Kind {
    Text,
    /// One of these words.
    Words(Vec<String>),
    /// Bytes in base64.
    Bytes,
    Integer,
    Boolean,
    Map,
    List(String),
}

/// Codes that every operation may be refused with.
const COMMON: [&str; 4] = [
    "caller-refused",
    "invalid-request",
    "body-timeout",
    "body-too-large",
];

impl Description {
    pub(super) fn read(text: &str) -> anyhow::Result<Self> {
        let root: Value = serde_json::from_str(text)?;
        let schemas = object(at(&root, &["components", "schemas"]))?;
        let mut codes = Vec::new();
        let mut read = Vec::new();
        for (name, schema) in schemas {
            if name == "Error" {
                for code in list(at(schema, &["properties", "code", "oneOf"]))? {
                    codes.push((
                        text_of(at(code, &["const"]))?,
                        text_of(at(code, &["description"]))?,
                    ));
                }
            } else {
                read.push(Schema::read(name, schema).with_context(|| format!("schema {name}"))?);
            }
        }
        let mut operations = Vec::new();
        for (path, methods) in object(at(&root, &["paths"]))? {
            for (method, operation) in object(methods)? {
                operations.push(
                    Operation::read(&root, path, method, operation)
                        .with_context(|| format!("{method} {path}"))?,
                );
            }
        }
        Ok(Self {
            operations,
            schemas: read,
            codes,
        })
    }

    /// The fields of a schema of an object.
    pub(super) fn fields(&self, name: &str) -> &[Field] {
        let schema = self.schemas.iter().find(|schema| schema.name == name);
        match schema.map(|schema| &schema.shape) {
            Some(Shape::Object(fields)) => fields,
            _ => &[],
        }
    }

    /// The schemas of what is answered, or part of it.
    pub(super) fn answered(&self) -> impl Iterator<Item = &Schema> {
        let is_answer = |name: &str| {
            let mut answers = self.operations.iter().map(|operation| &operation.answer);
            answers.any(|answer| matches!(answer, Answer::Object(of) if of == name))
        };
        let schemas = self.schemas.iter();
        schemas.filter(move |schema| !self.is_sent(&schema.name) || is_answer(&schema.name))
    }

    /// The field that tells a schema from another one, and its value.
    pub(super) fn told_apart(&self, name: &str) -> Option<(&str, bool)> {
        self.schemas.iter().find_map(|schema| match &schema.shape {
            Shape::Either { by, yes, .. } if yes == name => Some((&**by, true)),
            Shape::Either { by, no, .. } if no == name => Some((&**by, false)),
            _ => None,
        })
    }

    /// Whether a schema is one of what is sent.
    pub(super) fn is_sent(&self, name: &str) -> bool {
        let mut bodies = self
            .operations
            .iter()
            .filter_map(|operation| operation.body.as_deref());
        bodies.any(|body| body == name)
    }
}

impl Operation {
    fn read(root: &Value, path: &str, method: &str, value: &Value) -> anyhow::Result<Self> {
        let mut codes = Vec::new();
        let mut answer = None;
        for (status, response) in object(at(value, &["responses"]))? {
            let response = resolved(root, response)?;
            if status.starts_with('2') {
                answer = Some(Answer::read(at(response, &["content"]))?);
                continue;
            }
            let named = at(
                response,
                &[
                    "content",
                    "application/json",
                    "schema",
                    "properties",
                    "code",
                ],
            );
            for code in list(at(named, &["enum"]))? {
                let code = text_of(code)?;
                if !COMMON.contains(&&*code) && !codes.contains(&code) {
                    codes.push(code);
                }
            }
        }
        let (mut in_path, mut in_query) = (Vec::new(), Vec::new());
        for parameter in at(value, &["parameters"]).as_array().into_iter().flatten() {
            let name = text_of(at(parameter, &["name"]))?;
            let required = at(parameter, &["required"]) == true;
            let mut field = Field::read(&name, at(parameter, &["schema"]), required)?;
            field.description = text_of(at(parameter, &["description"]))?;
            match at(parameter, &["in"]).as_str() {
                Some("path") => in_path.push(field),
                Some("query") => in_query.push(field),
                _ => bail!("the parameter {name} is neither in the path nor in the query"),
            }
        }
        let body = match at(
            value,
            &["requestBody", "content", "application/json", "schema"],
        ) {
            Value::Null => None,
            schema => Some(name_of(schema)?),
        };
        Ok(Self {
            name: text_of(at(value, &["operationId"]))?,
            method: method.to_uppercase(),
            path: path.to_owned(),
            summary: text_of(at(value, &["summary"]))?,
            description: text_of(at(value, &["description"]))?,
            in_path,
            in_query,
            body,
            answer: answer.context("it has no answer")?,
            codes,
        })
    }

    /// The path as parts: text, and whether it is a parameter's name.
    pub(super) fn parts(&self) -> impl Iterator<Item = (&str, bool)> {
        let parts = self.path.split(['{', '}']).enumerate();
        parts
            .map(|(index, part)| (part, index % 2 == 1))
            .filter(|(part, _)| !part.is_empty())
    }
}

impl Answer {
    fn read(content: &Value) -> anyhow::Result<Self> {
        if content.is_null() {
            return Ok(Self::Nothing);
        }
        match at(content, &["application/json", "schema"]) {
            Value::Null => Ok(Self::Bytes),
            schema => Ok(Self::Object(name_of(schema)?)),
        }
    }
}

impl Schema {
    fn read(name: &str, value: &Value) -> anyhow::Result<Self> {
        let shape = match at(value, &["oneOf"]).as_array().map(Vec::as_slice) {
            Some([yes, no]) => Shape::Either {
                by: "accepted".to_owned(),
                yes: name_of(yes)?,
                no: name_of(no)?,
            },
            Some(_) => bail!("it is one of more than two"),
            None => Shape::Object(fields(value)?),
        };
        Ok(Self {
            name: name.to_owned(),
            description: text_of(at(value, &["description"]))?,
            shape,
        })
    }
}

/// The fields of an object: those that are required first, in the order in which they are.
fn fields(value: &Value) -> anyhow::Result<Vec<Field>> {
    let properties = object(at(value, &["properties"]))?;
    let required: Vec<String> = at(value, &["required"])
        .as_array()
        .into_iter()
        .flatten()
        .map(text_of)
        .collect::<Result<_, _>>()?;
    let optional = properties.keys().filter(|name| !required.contains(name));
    required
        .iter()
        .chain(optional)
        .map(|name| {
            Field::read(
                name,
                at(value, &["properties", name]),
                required.contains(name),
            )
        })
        .collect()
}

impl Field {
    fn read(name: &str, schema: &Value, is_required: bool) -> anyhow::Result<Self> {
        let (kind, is_nullable) = match at(schema, &["type"]) {
            Value::Array(either) => (either.first().and_then(Value::as_str), true),
            kind => (kind.as_str(), false),
        };
        let kind = match kind {
            Some("string") if at(schema, &["contentEncoding"]) == "base64" => Kind::Bytes,
            Some("string") => match at(schema, &["enum"]).as_array() {
                Some(words) => Kind::Words(words.iter().map(text_of).collect::<Result<_, _>>()?),
                None => Kind::Text,
            },
            Some("integer") => Kind::Integer,
            Some("boolean") => Kind::Boolean,
            Some("object") if at(schema, &["additionalProperties", "type"]) == "string" => {
                Kind::Map
            }
            Some("array") => Kind::List(name_of(at(schema, &["items"]))?),
            _ => bail!("the field {name} has an unknown type"),
        };
        Ok(Self {
            name: name.to_owned(),
            kind,
            is_required,
            is_nullable,
            description: at(schema, &["description"])
                .as_str()
                .unwrap_or_default()
                .to_owned(),
        })
    }
}

fn resolved<'a>(root: &'a Value, value: &'a Value) -> anyhow::Result<&'a Value> {
    match at(value, &["$ref"]).as_str() {
        Some(place) => root
            .pointer(place.trim_start_matches('#'))
            .with_context(|| format!("there is no {place}")),
        None => Ok(value),
    }
}

/// The name of the schema that is referred to.
fn name_of(schema: &Value) -> anyhow::Result<String> {
    let place = text_of(at(schema, &["$ref"]))?;
    let name = place.strip_prefix("#/components/schemas/");
    Ok(name
        .with_context(|| format!("{place} is no schema"))?
        .to_owned())
}

/// What is at this place, or null.
fn at<'a>(value: &'a Value, place: &[&str]) -> &'a Value {
    let mut places = place.iter();
    let found = places.try_fold(value, |value, name| value.get(name));
    found.unwrap_or(&Value::Null)
}

fn object(value: &Value) -> anyhow::Result<&serde_json::Map<String, Value>> {
    value.as_object().context("an object is missing")
}

fn list(value: &Value) -> anyhow::Result<&Vec<Value>> {
    value.as_array().context("a list is missing")
}

fn text_of(value: &Value) -> anyhow::Result<String> {
    Ok(value.as_str().context("a text is missing")?.to_owned())
}
