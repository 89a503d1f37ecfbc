//! Services that speak JSON.

use bytes::Bytes;
use http::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::client::Client;
use crate::endpoint::Service;
use crate::error::Error;
use crate::request::{Body, Request};

/// An operation of a service with AWS's JSON 1.1 protocol.
pub(crate) struct Operation {
    pub(crate) service: Service,
    pub(crate) name: &'static str,
    /// Comes before the name in `X-Amz-Target`.
    pub(crate) target: &'static str,
}

/// Calls an operation that may be repeated without harm.
pub(crate) async fn call<T: DeserializeOwned>(
    client: &Client,
    operation: &Operation,
    input: &impl Serialize,
) -> Result<T, Error> {
    let Operation {
        service,
        name,
        target,
    } = *operation;
    let body = serde_json::to_vec(input).map_err(|error| Error::Request {
        service,
        operation: name,
        reason: error.to_string(),
    })?;
    let request = Request::new(service, name, Method::POST, "/")
        .header("content-type", "application/x-amz-json-1.1")
        .header("x-amz-target", format!("{target}.{name}"))
        .body(Body::Bytes(Bytes::from(body)))
        .idempotent(true);
    let response = client.send(request).await?;
    // Operations without a result answer without a body.
    let answer: &[u8] = match response.body.as_ref() {
        [] => b"{}",
        body => body,
    };
    serde_json::from_slice(answer).map_err(|error| Error::Malformed {
        service,
        operation: name,
        reason: error.to_string(),
    })
}

/// The code and the message of a refusal.
pub(crate) fn error(body: &[u8]) -> (Option<String>, Option<String>) {
    let Ok(value) = serde_json::from_slice::<Value>(body) else {
        return (None, None);
    };
    let text = |names: &[&str]| {
        let mut found = names.iter().filter_map(|name| value.get(name)?.as_str());
        found.next().map(str::to_owned)
    };
    (
        text(&["__type", "code", "Type"]),
        text(&["message", "Message", "errorMessage"]),
    )
}
