//! Lambda functions.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use serde::Deserialize;
use thiserror::Error;

use crate::client::Client;
use crate::endpoint::Service;
use crate::error::Error;
use crate::request::{Body, Request, encode};

/// Bytes of an answer: Lambda's own limit of 6 MB, and room.
const MAX_ANSWER: usize = 7 * 1024 * 1024;

/// Why an invocation has failed.
#[derive(Debug, Error)]
pub enum InvokeError {
    /// The service could not be asked, or has refused.
    #[error(transparent)]
    Service(#[from] Error),
    /// The function ran and failed.
    #[error("the function {function} has failed: {kind}: {message}")]
    Function {
        /// The function's name.
        function: String,
        /// Its error's type.
        kind: String,
        /// Its error's message.
        message: String,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FunctionError {
    #[serde(default)]
    error_type: String,
    #[serde(default)]
    error_message: String,
}

/// Calls to Lambda.
#[derive(Debug, Clone, Copy)]
pub struct Lambda<'a>(&'a Client);

impl Client {
    /// Lambda.
    pub fn lambda(&self) -> Lambda<'_> {
        Lambda(self)
    }
}

impl Lambda<'_> {
    /// Invokes a function, by its name or ARN, and waits for its answer for at
    /// most `timeout`. If `may_repeat`, it is invoked again where it is not known
    /// whether it ran.
    pub async fn invoke(
        self,
        function: &str,
        payload: Bytes,
        may_repeat: bool,
        timeout: Duration,
    ) -> Result<Bytes, InvokeError> {
        let path = format!(
            "/2015-03-31/functions/{}/invocations",
            encode(function, false)
        );
        let request = Request::new(Service::Lambda, "Invoke", Method::POST, path)
            .header("content-type", "application/json")
            .header("x-amz-invocation-type", "RequestResponse")
            .body(Body::Bytes(payload))
            .idempotent(may_repeat)
            .max_answer(MAX_ANSWER)
            .timeout(timeout);
        let response = self.0.send(request).await?;
        if response.headers.contains_key("x-amz-function-error") {
            let error = serde_json::from_slice(&response.body).unwrap_or(FunctionError {
                error_type: "unknown error".to_owned(),
                error_message: String::from_utf8_lossy(&response.body).into_owned(),
            });
            return Err(InvokeError::Function {
                function: function.to_owned(),
                kind: error.error_type,
                message: error.error_message,
            });
        }
        Ok(response.body)
    }
}
