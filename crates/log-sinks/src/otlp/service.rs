//! Requests to the receiver.

use std::time::Duration;

use aws_smithy_http_client::Connector;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_runtime_api::client::dns::SharedDnsResolver;
use aws_smithy_runtime_api::client::http::HttpConnector;
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::byte_stream::ByteStream;
use bytes::Bytes;
use serde_json::Value;
use tokio::time::timeout;

use crate::config::OtlpUrl;
use crate::{ErrorClass, SendError};

/// How long a request may take from its start to its answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// A receiver.
pub(super) struct Service {
    url: String,
    connector: Connector,
}

impl Service {
    pub(super) fn new(url: &OtlpUrl, resolver: SharedDnsResolver) -> Self {
        let connector = Connector::builder()
            .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
            .build_with_resolver(resolver);
        Self {
            url: url.as_str().to_owned(),
            connector,
        }
    }

    /// Sends a request; the answer is how many records were rejected.
    pub(super) async fn post(&self, body: Bytes) -> Result<u64, SendError> {
        match timeout(REQUEST_TIMEOUT, self.try_post(body)).await {
            Ok(result) => result,
            Err(_) => Err(SendError::new(
                ErrorClass::Timeout,
                format!("no answer within {} s", REQUEST_TIMEOUT.as_secs()),
            )),
        }
    }

    async fn try_post(&self, body: Bytes) -> Result<u64, SendError> {
        let invalid = |_| SendError::new(ErrorClass::NotFound, "the URL is not valid");
        let mut request = HttpRequest::new(SdkBody::from(body));
        request.set_method("POST").map_err(invalid)?;
        request.set_uri(self.url.as_str()).map_err(invalid)?;
        request
            .headers_mut()
            .insert("content-type", "application/json");
        let response = self
            .connector
            .call(request)
            .await
            .map_err(|error| connection(&error))?;
        let status = response.status().as_u16();
        let body = ByteStream::new(response.into_body()).collect().await;
        match status {
            200..300 => Ok(body
                .ok()
                .and_then(|body| serde_json::from_slice(&body.into_bytes()).ok())
                .map_or(0, |answer| rejected(&answer))),
            _ => Err(SendError::new(
                class(status),
                format!("the receiver answers with status {status}"),
            )),
        }
    }
}

/// The count in `partialSuccess`, a number or, as the encoding wants it, a text.
fn rejected(answer: &Value) -> u64 {
    answer
        .pointer("/partialSuccess/rejectedLogRecords")
        .and_then(|count| count.as_u64().or_else(|| count.as_str()?.parse().ok()))
        .unwrap_or(0)
}

fn connection(error: &ConnectorError) -> SendError {
    let class = if error.is_timeout() {
        ErrorClass::Timeout
    } else {
        ErrorClass::Connection
    };
    let mut message = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        message += ": ";
        message += &cause.to_string();
        source = cause.source();
    }
    SendError::new(class, message)
}

/// What the protocol says of each status: only 429, 502, 503 and 504 are worth
/// another try. Those about permission and place are tried again, since somebody
/// may mend them, and the records are here.
fn class(status: u16) -> ErrorClass {
    match status {
        429 => ErrorClass::Throttled,
        401 => ErrorClass::Credentials,
        403 | 407 => ErrorClass::Denied,
        404 | 405 | 410 => ErrorClass::NotFound,
        400 | 413 | 415 | 422 => ErrorClass::Refused,
        408 | 504 => ErrorClass::Timeout,
        _ => ErrorClass::Server,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_partial_success_is_counted() {
        assert_eq!(rejected(&json!({})), 0);
        let count = |count: Value| json!({ "partialSuccess": { "rejectedLogRecords": count } });
        assert_eq!(rejected(&count(json!("3"))), 3);
        assert_eq!(rejected(&count(json!(4))), 4);
    }
}
