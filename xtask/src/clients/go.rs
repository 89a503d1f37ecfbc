//! The client for Go: structs, and a method for each operation.

use std::fmt::Write as _;

use super::description::{Answer, Description, Field, Kind, Operation, Schema, Shape};
use super::{NOTE, camel, pascal, wrapped};

const HEAD: &str = r#"
// Package enclaveapi is a client of the local API of an enclave: what PID 1 does for the
// workload.
package enclaveapi

import (
	"context"
	"encoding/json"
	"net/url"
	"strconv"
)
"#;

/// Words that Go writes in capitals.
const INITIALISMS: [&str; 4] = ["api", "id", "kms", "ns"];

/// The generated file of the package.
pub(super) fn package(description: &Description) -> String {
    let mut out = format!("// {NOTE}\n");
    out.push_str(HEAD);
    out.push_str("\n// Codes of an Error.\nconst (\n");
    for (code, meaning) in &description.codes {
        let text = format!("Code{}: {meaning}", go(code));
        out.push_str(&wrapped(&text, "\t// "));
        let _ = writeln!(out, "\tCode{} = \"{code}\"", go(code));
    }
    out.push_str(")\n");
    for schema in &description.schemas {
        write_schema(&mut out, schema);
    }
    for operation in &description.operations {
        write_operation(&mut out, operation);
    }
    out
}

fn go(name: &str) -> String {
    pascal(name, &INITIALISMS)
}

fn kind(field: &Field) -> String {
    let plain = match &field.kind {
        Kind::Text | Kind::Words(_) => "string",
        // None of them is a nil one.
        Kind::Bytes => return "[]byte".to_owned(),
        Kind::Integer => "int64",
        Kind::Boolean => "bool",
        Kind::Map => return "map[string]string".to_owned(),
        Kind::List(of) => return format!("[]{}", go(of)),
    };
    if field.is_nullable {
        format!("*{plain}")
    } else {
        plain.to_owned()
    }
}

fn write_schema(out: &mut String, schema: &Schema) {
    let name = go(&schema.name);
    out.push('\n');
    let fields = match &schema.shape {
        Shape::Either { by, yes, no } => {
            let (yes, no) = (go(yes), go(no));
            let text = format!("{name} is one of the two. {}", schema.description);
            out.push_str(&wrapped(&text, "// "));
            let _ = write!(
                out,
                "type {name} struct {{\n\t// Nil if it is the other.\n\t{yes} *{yes}\n\t// The same.\n\t{no} *{no}\n}}\n\n\
                 // UnmarshalJSON reads the one that it is.\n\
                 func (v *{name}) UnmarshalJSON(data []byte) error {{\n\
                 \tvar told struct {{\n\t\tYes bool `json:\"{by}\"`\n\t}}\n\
                 \tif err := json.Unmarshal(data, &told); err != nil {{\n\t\treturn err\n\t}}\n\
                 \tif told.Yes {{\n\t\tv.{yes} = &{yes}{{}}\n\t\treturn json.Unmarshal(data, v.{yes})\n\t}}\n\
                 \tv.{no} = &{no}{{}}\n\treturn json.Unmarshal(data, v.{no})\n}}\n"
            );
            return;
        }
        Shape::Object(fields) => fields,
    };
    let text = format!("{name}: {}", schema.description);
    out.push_str(&wrapped(&text, "// "));
    let _ = writeln!(out, "type {name} struct {{");
    for field in fields {
        out.push_str(&wrapped(
            &field.description.replace(", in base64", ""),
            "\t// ",
        ));
        let rest = if field.is_required { "" } else { ",omitempty" };
        let _ = writeln!(
            out,
            "\t{} {} `json:\"{}{rest}\"`",
            go(&field.name),
            kind(field),
            field.name
        );
    }
    out.push_str("}\n");
}

fn text_of(field: &Field, value: &str) -> String {
    match field.kind {
        Kind::Integer => format!("strconv.FormatInt({value}, 10)"),
        _ => value.to_owned(),
    }
}

fn write_operation(out: &mut String, operation: &Operation) {
    let name = go(&operation.name);
    let required = |fields: &[Field]| -> Vec<String> {
        let required = fields.iter().filter(|field| field.is_required);
        required
            .map(|field| format!("{} {}", camel(&field.name), kind(field)))
            .collect()
    };
    let optional: Vec<_> = operation
        .in_query
        .iter()
        .filter(|field| !field.is_required)
        .collect();
    let mut arguments = vec!["ctx context.Context".to_owned()];
    arguments.extend(required(&operation.in_path));
    arguments.extend(required(&operation.in_query));
    if let Some(body) = &operation.body {
        arguments.push(format!("request {}", go(body)));
    }
    if !optional.is_empty() {
        let _ = writeln!(
            out,
            "\n// {name}Options are what {name} may be given; zero is not sent."
        );
        let _ = writeln!(out, "type {name}Options struct {{");
        for field in &optional {
            out.push_str(&wrapped(&field.description, "\t// "));
            let _ = writeln!(out, "\t{} {}", go(&field.name), kind(field));
        }
        out.push_str("}\n");
        arguments.push(format!("options {name}Options"));
    }
    let mut text = format!("{name}: {}. {}", operation.summary, operation.description);
    for field in operation.in_path.iter().chain(&operation.in_query) {
        if field.is_required {
            let _ = write!(text, " {}: {}", camel(&field.name), field.description);
        }
    }
    if !operation.codes.is_empty() {
        let codes: Vec<_> = operation
            .codes
            .iter()
            .map(|code| format!("Code{}", go(code)))
            .collect();
        let _ = write!(text, " Codes of its own: {}.", codes.join(", "));
    }
    out.push('\n');
    out.push_str(&wrapped(&text, "// "));
    let path: Vec<_> = operation
        .parts()
        .map(|(part, is_parameter)| {
            if !is_parameter {
                return format!("\"{part}\"");
            }
            let field = operation.in_path.iter().find(|field| field.name == part);
            let value = field
                .map(|field| text_of(field, &camel(part)))
                .unwrap_or_default();
            format!("url.PathEscape({value})")
        })
        .collect();
    let path = path.join("+");
    let answer = match &operation.answer {
        Answer::Nothing => "error".to_owned(),
        Answer::Bytes => "([]byte, error)".to_owned(),
        Answer::Object(name) => format!("({}, error)", go(name)),
    };
    let _ = writeln!(
        out,
        "func (c *Client) {name}({}) {answer} {{",
        arguments.join(", ")
    );
    let query = write_query(out, operation);
    let body = if operation.body.is_some() {
        "request"
    } else {
        "nil"
    };
    let sent = format!("ctx, \"{}\", {path}, {query}, {body}", operation.method);
    let _ = match &operation.answer {
        Answer::Nothing => writeln!(out, "\t_, err := c.send({sent})\n\treturn err"),
        Answer::Bytes => writeln!(out, "\treturn c.send({sent})"),
        Answer::Object(name) => writeln!(
            out,
            "\tvar answer {}\n\terr := c.json({sent}, &answer)\n\treturn answer, err",
            go(name)
        ),
    };
    out.push_str("}\n");
}

/// What is asked for in the query, as the expression that the request is sent with.
fn write_query(out: &mut String, operation: &Operation) -> &'static str {
    if operation.in_query.is_empty() {
        return "nil";
    }
    out.push_str("\tquery := url.Values{}\n");
    for field in &operation.in_query {
        let sent = field.name.as_str();
        if field.is_required {
            let value = text_of(field, &camel(sent));
            let _ = writeln!(out, "\tquery.Set(\"{sent}\", {value})");
        } else {
            let place = format!("options.{}", go(sent));
            let value = text_of(field, &place);
            let _ = writeln!(
                out,
                "\tif {place} != 0 {{\n\t\tquery.Set(\"{sent}\", {value})\n\t}}"
            );
        }
    }
    "query"
}
