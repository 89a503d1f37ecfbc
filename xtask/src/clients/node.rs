//! The client for Node.js: an ECMAScript module, and its types for TypeScript.

use std::fmt::Write as _;

use super::description::{Answer, Description, Field, Kind, Operation, Schema, Shape};
use super::{NOTE, camel, wrapped};

const HEAD: &str = r"
import { EnclaveApiError, SOCKET, Transport, bytesOf } from './transport.js';

export { EnclaveApiError, SOCKET };
";

const CLASS: &str = r"
/** A client of the local API of an enclave. */
export class EnclaveApi {
  #transport;

  constructor(options = {}) {
    this.#transport = new Transport(options);
  }
";

const TYPES: &str = r"
/** Where the API is without a network. */
export const SOCKET: string;

/** The API has refused a request. */
export class EnclaveApiError extends Error {
  /** The HTTP status. */
  readonly status: number;
  /** What was wrong, for programs; empty if whoever answered was not the API. */
  readonly code: ErrorCode | '';
  /** What to do about it, for people. */
  readonly advice: string;
}

export interface EnclaveApiOptions {
  /**
   * `http://HOST:PORT` or `unix:PATH`; by default that of the variable `ENCLAVE_API`, or else
   * the socket.
   */
  address?: string;
  /** Milliseconds until a request is given up; 20000 by default. */
  timeout?: number;
}
";

const TYPES_CLASS: &str = r"
/**
 * A client of the local API of an enclave. Every method rejects with an `EnclaveApiError` if
 * the API refuses the request, and with another `Error` if there is no answer in time.
 */
export class EnclaveApi {
  constructor(options?: EnclaveApiOptions);
";

/// `index.js`.
pub(super) fn module(description: &Description) -> String {
    let mut out = format!("// {NOTE}\n");
    out.push_str(HEAD);
    out.push_str(CLASS);
    for operation in &description.operations {
        write_operation(&mut out, description, operation);
    }
    out.push_str("}\n");
    for schema in description.answered() {
        write_reader(&mut out, schema);
    }
    out
}

/// `index.d.ts`.
pub(super) fn types(description: &Description) -> String {
    let mut out = format!("// {NOTE}\n");
    out.push_str("\n/** The codes of `EnclaveApiError`. */\nexport type ErrorCode =");
    for (code, _) in &description.codes {
        let _ = write!(out, "\n  | '{code}'");
    }
    out.push_str(";\n");
    out.push_str(TYPES);
    for schema in &description.schemas {
        write_type(&mut out, description, schema);
    }
    out.push_str(TYPES_CLASS);
    for operation in &description.operations {
        write_signature(&mut out, description, operation);
    }
    out.push_str("}\n");
    out
}

/// What is given in its own place.
fn parameters(operation: &Operation) -> impl Iterator<Item = &Field> {
    let query = operation.in_query.iter().filter(|field| field.is_required);
    operation.in_path.iter().chain(query)
}

/// What is given by name, or not at all.
fn optional(operation: &Operation) -> Vec<&Field> {
    let query = operation.in_query.iter();
    query.filter(|field| !field.is_required).collect()
}

/// Whether everything in what is sent may be left out.
fn may_be_left_out(description: &Description, body: &str) -> bool {
    description
        .fields(body)
        .iter()
        .all(|field| !field.is_required)
}

fn write_operation(out: &mut String, description: &Description, operation: &Operation) {
    let mut arguments: Vec<_> = parameters(operation)
        .map(|field| camel(&field.name))
        .collect();
    if operation.body.is_some() || !optional(operation).is_empty() {
        let body = operation.body.as_deref();
        let needed = body.is_some_and(|body| !may_be_left_out(description, body));
        arguments.push(if needed { "options" } else { "options = {}" }.to_owned());
    }
    let path: String = operation
        .parts()
        .map(|(part, is_parameter)| {
            if is_parameter {
                format!("${{encodeURIComponent({})}}", camel(part))
            } else {
                part.to_owned()
            }
        })
        .collect();
    let given = |fields: Vec<(&Field, bool)>| {
        let given = fields.into_iter().map(|(field, is_argument)| {
            let name = camel(&field.name);
            let name = if is_argument {
                name
            } else {
                format!("options.{name}")
            };
            format!("{}: {name}", field.name)
        });
        let given: Vec<_> = given.collect();
        if given.len() < 3 {
            return format!("{{ {} }}", given.join(", "));
        }
        format!("{{\n      {},\n    }}", given.join(",\n      "))
    };
    let mut sent = vec![format!("'{}'", operation.method), format!("`{path}`")];
    let query: Vec<_> = operation
        .in_query
        .iter()
        .map(|field| (field, field.is_required))
        .collect();
    if !query.is_empty() {
        sent.push(format!("{{ query: {} }}", given(query)));
    } else if let Some(body) = &operation.body {
        let fields = description.fields(body).iter().map(|field| (field, false));
        sent.push(format!("{{ body: {} }}", given(fields.collect())));
    }
    let sent = sent.join(", ");
    let _ = write!(
        out,
        "\n  /** {}. */\n  async {}({}) {{\n",
        operation.summary,
        camel(&operation.name),
        arguments.join(", ")
    );
    let _ = match &operation.answer {
        Answer::Nothing => writeln!(out, "    await this.#transport.send({sent});"),
        Answer::Bytes => writeln!(out, "    return this.#transport.send({sent});"),
        Answer::Object(name) => writeln!(
            out,
            "    return {}(await this.#transport.json({sent}));",
            reader(name)
        ),
    };
    out.push_str("  }\n");
}

fn reader(name: &str) -> String {
    format!("read{name}")
}

fn write_reader(out: &mut String, schema: &Schema) {
    let _ = writeln!(out, "\nfunction {}(value) {{", reader(&schema.name));
    match &schema.shape {
        Shape::Either { by, yes, no } => {
            let _ = writeln!(
                out,
                "  return value.{by} === true ? {}(value) : {}(value);",
                reader(yes),
                reader(no)
            );
        }
        Shape::Object(fields) => {
            out.push_str("  return {\n");
            for field in fields {
                let name = &field.name;
                let value = match &field.kind {
                    Kind::Bytes => format!("bytesOf(value.{name})"),
                    Kind::List(of) => format!("value.{name}.map({})", reader(of)),
                    _ => format!("value.{name}"),
                };
                let _ = writeln!(out, "    {}: {value},", camel(name));
            }
            out.push_str("  };\n");
        }
    }
    out.push_str("}\n");
}

fn kind(field: &Field, is_sent: bool) -> String {
    let plain = match &field.kind {
        Kind::Text => "string".to_owned(),
        Kind::Words(words) => {
            let words: Vec<_> = words.iter().map(|word| format!("'{word}'")).collect();
            words.join(" | ")
        }
        // Node's own buffers, which are arrays too.
        Kind::Bytes if is_sent => "Uint8Array".to_owned(),
        Kind::Bytes => "Buffer".to_owned(),
        Kind::Integer => "number".to_owned(),
        Kind::Boolean => "boolean".to_owned(),
        Kind::Map => "Record<string, string>".to_owned(),
        Kind::List(of) => format!("{of}[]"),
    };
    if field.is_nullable {
        format!("{plain} | null")
    } else {
        plain
    }
}

fn comment(text: &str, start: &str) -> String {
    let lines = wrapped(text, &format!("{start} * "));
    if lines.lines().count() == 1 {
        return format!("{start}/** {text} */\n");
    }
    format!("{start}/**\n{lines}{start} */\n")
}

fn write_type(out: &mut String, description: &Description, schema: &Schema) {
    let is_sent = description.is_sent(&schema.name);
    out.push('\n');
    out.push_str(&comment(&schema.description, ""));
    let fields = match &schema.shape {
        Shape::Either { yes, no, .. } => {
            let _ = writeln!(out, "export type {} = {yes} | {no};", schema.name);
            return;
        }
        Shape::Object(fields) => fields,
    };
    let told_apart = description.told_apart(&schema.name);
    let _ = writeln!(out, "export interface {} {{", schema.name);
    for field in fields {
        out.push_str(&comment(
            &field.description.replace(", in base64", ""),
            "  ",
        ));
        let kind = match told_apart {
            Some((by, value)) if by == field.name => value.to_string(),
            _ => kind(field, is_sent),
        };
        let sign = if field.is_required { "" } else { "?" };
        let start = if is_sent { "" } else { "readonly " };
        let _ = writeln!(out, "  {start}{}{sign}: {kind};", camel(&field.name));
    }
    out.push_str("}\n");
}

fn write_signature(out: &mut String, description: &Description, operation: &Operation) {
    let mut arguments: Vec<_> = parameters(operation)
        .map(|field| format!("{}: {}", camel(&field.name), kind(field, true)))
        .collect();
    if let Some(body) = &operation.body {
        let sign = if may_be_left_out(description, body) {
            "?"
        } else {
            ""
        };
        arguments.push(format!("options{sign}: {body}"));
    }
    let query = optional(operation);
    if !query.is_empty() {
        let fields = query
            .iter()
            .map(|field| format!("{}?: {}", camel(&field.name), kind(field, true)));
        let fields: Vec<_> = fields.collect();
        arguments.push(format!("options?: {{ {} }}", fields.join("; ")));
    }
    let answer = match &operation.answer {
        Answer::Nothing => "void",
        Answer::Bytes => "Buffer",
        Answer::Object(name) => name,
    };
    let mut text = format!("{}. {}", operation.summary, operation.description);
    for field in operation.in_path.iter().chain(&operation.in_query) {
        let _ = write!(text, " `{}`: {}", camel(&field.name), field.description);
    }
    if !operation.codes.is_empty() {
        let _ = write!(text, " Codes of its own: {}.", operation.codes.join(", "));
    }
    let _ = write!(
        out,
        "\n{}  {}({}): Promise<{answer}>;\n",
        comment(&text, "  "),
        camel(&operation.name),
        arguments.join(", ")
    );
}
