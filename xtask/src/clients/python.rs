//! The client for Python: dataclasses, and a class with a method for each operation.

use std::fmt::Write as _;

use super::description::{Answer, Description, Field, Kind, Operation, Schema, Shape};
use super::{NOTE, snake, wrapped};

const HEAD: &str = r#"
"""The local API of an enclave: what PID 1 does for the workload.

    from enclave_api import EnclaveApi

    api = EnclaveApi()
    document = api.attest(nonce=nonce)
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Any, Dict, List, Literal, Mapping, Optional, Union

from .transport import SOCKET, EnclaveApiError, Transport, bytes_or_none, quoted

"#;

const CLASS: &str = r#"
class EnclaveApi:
    """A client of the local API; it may be used by several threads.

    Every method raises :class:`EnclaveApiError` if the API refuses the request, and
    :class:`OSError` if there is no answer in time.
    """

    def __init__(self, address: Optional[str] = None, timeout: float = 20.0) -> None:
        """``address`` is ``http://HOST:PORT`` or ``unix:PATH``; by default that of the
        variable ``ENCLAVE_API``, or else the socket. ``timeout`` is in seconds, for each
        time that something is waited for."""
        self._transport = Transport(address, timeout)
"#;

/// The whole module.
pub(super) fn module(description: &Description) -> String {
    let mut out = format!("# {NOTE}");
    out.push_str(HEAD);
    out.push_str("__all__ = [\n    \"SOCKET\",\n    \"EnclaveApi\",\n    \"EnclaveApiError\",\n    \"ErrorCode\",\n");
    for schema in description.answered() {
        let _ = writeln!(out, "    \"{}\",", schema.name);
    }
    out.push_str("]\n\n#: The codes of :class:`EnclaveApiError`.\nErrorCode = Literal[\n");
    for (code, _) in &description.codes {
        let _ = writeln!(out, "    \"{code}\",");
    }
    out.push_str("]\n");
    let (objects, others): (Vec<_>, Vec<_>) = description
        .answered()
        .partition(|schema| matches!(schema.shape, Shape::Object(_)));
    for schema in objects.into_iter().chain(others) {
        write_schema(&mut out, description, schema);
    }
    out.push('\n');
    out.push_str(CLASS);
    for operation in &description.operations {
        write_operation(&mut out, description, operation);
    }
    out
}

fn write_schema(out: &mut String, description: &Description, schema: &Schema) {
    let fields = match &schema.shape {
        Shape::Either { by, yes, no } => {
            let _ = writeln!(out, "\n\n#: {}", schema.description);
            let _ = writeln!(out, "{} = Union[{yes}, {no}]", schema.name);
            let _ = write!(
                out,
                "\n\ndef _{}(value: Mapping[str, Any]) -> {}:\n    if value[\"{by}\"] is True:\n        return {yes}._of(value)\n    return {no}._of(value)\n",
                snake(&schema.name),
                schema.name
            );
            return;
        }
        Shape::Object(fields) => fields,
    };
    let _ = writeln!(out, "\n\n@dataclass(frozen=True)\nclass {}:", schema.name);
    let _ = writeln!(out, "    \"\"\"{}\"\"\"\n", schema.description);
    for field in fields {
        // What may be secret does not come into logs by itself.
        let default = match (&field.kind, field.is_required) {
            (Kind::Bytes, true) => " = field(repr=False)",
            (Kind::Bytes, false) => " = field(default=None, repr=False)",
            (_, true) => "",
            (_, false) => " = None",
        };
        out.push_str(&wrapped(
            &field.description.replace(", in base64", ""),
            "    #: ",
        ));
        let kind = match description.told_apart(&schema.name) {
            Some((by, true)) if by == field.name => "Literal[True]".to_owned(),
            Some((by, false)) if by == field.name => "Literal[False]".to_owned(),
            _ => kind(field),
        };
        let _ = writeln!(out, "    {}: {kind}{default}", field.name);
    }
    let _ = writeln!(
        out,
        "\n    @classmethod\n    def _of(cls, value: Mapping[str, Any]) -> {}:\n        return cls(",
        schema.name
    );
    for field in fields {
        let name = &field.name;
        let place = if field.is_required {
            format!("value[\"{name}\"]")
        } else {
            format!("value.get(\"{name}\")")
        };
        let value = match &field.kind {
            Kind::Bytes if field.is_nullable || !field.is_required => {
                format!("bytes_or_none({place})")
            }
            Kind::Bytes => format!("base64.b64decode({place})"),
            Kind::Map => format!("dict({place})"),
            Kind::List(of) => format!("[{of}._of(item) for item in {place}]"),
            _ => place,
        };
        let _ = writeln!(out, "            {name}={value},");
    }
    out.push_str("        )\n");
}

fn kind(field: &Field) -> String {
    let plain = match &field.kind {
        Kind::Text => "str".to_owned(),
        Kind::Words(words) => {
            let words: Vec<_> = words.iter().map(|word| format!("\"{word}\"")).collect();
            format!("Literal[{}]", words.join(", "))
        }
        Kind::Bytes => "bytes".to_owned(),
        Kind::Integer => "int".to_owned(),
        Kind::Boolean => "bool".to_owned(),
        Kind::Map => "Dict[str, str]".to_owned(),
        Kind::List(of) => format!("List[{of}]"),
    };
    if field.is_nullable || !field.is_required {
        format!("Optional[{plain}]")
    } else {
        plain
    }
}

fn write_operation(out: &mut String, description: &Description, operation: &Operation) {
    let body: &[Field] = operation
        .body
        .as_deref()
        .map_or(&[], |name| description.fields(name));
    let fields = || {
        operation
            .in_path
            .iter()
            .chain(&operation.in_query)
            .chain(body)
    };
    let mut arguments = vec!["self".to_owned()];
    arguments.extend(
        fields()
            .filter(|field| field.is_required)
            .map(|field| format!("{}: {}", field.name, kind(field))),
    );
    let optional: Vec<_> = fields()
        .filter(|field| !field.is_required)
        .map(|field| format!("{}: {} = None", field.name, kind(field)))
        .collect();
    if !optional.is_empty() {
        arguments.push("*".to_owned());
        arguments.extend(optional);
    }
    let answer = match &operation.answer {
        Answer::Nothing => "None",
        Answer::Bytes => "bytes",
        Answer::Object(name) => name,
    };
    let _ = write!(
        out,
        "\n    def {}(\n        {},\n    ) -> {answer}:\n",
        snake(&operation.name),
        arguments.join(",\n        ")
    );
    let _ = writeln!(out, "        \"\"\"{}.\n", operation.summary);
    out.push_str(&wrapped(&operation.description, "        "));
    out.push('\n');
    for field in fields() {
        let text = format!(
            ":param {}: {}",
            field.name,
            field.description.replace(", in base64", "")
        );
        out.push_str(&wrapped(&text, "        "));
    }
    if !operation.codes.is_empty() {
        let text = format!(
            ":raises EnclaveApiError: also with the codes {}.",
            operation.codes.join(", ")
        );
        out.push_str(&wrapped(&text, "        "));
    }
    out.push_str("        \"\"\"\n");
    let path: Vec<_> = operation
        .parts()
        .map(|(part, is_parameter)| {
            if is_parameter {
                format!("quoted({part})")
            } else {
                format!("\"{part}\"")
            }
        })
        .collect();
    let _ = writeln!(out, "        path = {}", path.join(" + "));
    let given = |fields: &[Field]| {
        let given = fields
            .iter()
            .map(|field| format!("\"{0}\": {0}", field.name));
        format!("{{{}}}", given.collect::<Vec<_>>().join(", "))
    };
    let mut sent = vec![format!("\"{}\"", operation.method), "path".to_owned()];
    if !operation.in_query.is_empty() {
        sent.push(format!("query={}", given(&operation.in_query)));
    }
    if operation.body.is_some() {
        sent.push(format!("body={}", given(body)));
    }
    let sent = sent.join(", ");
    let _ = match &operation.answer {
        Answer::Nothing => writeln!(out, "        self._transport.send({sent})"),
        Answer::Bytes => writeln!(out, "        return self._transport.send({sent})"),
        Answer::Object(name) => {
            let reads = match description
                .schemas
                .iter()
                .find(|schema| schema.name == *name)
            {
                Some(Schema {
                    shape: Shape::Either { .. },
                    ..
                }) => format!("_{}", snake(name)),
                _ => format!("{name}._of"),
            };
            writeln!(out, "        return {reads}(self._transport.json({sent}))")
        }
    };
}
