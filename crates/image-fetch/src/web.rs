//! Requests to web servers that are none of AWS's.

use std::time::Duration;

use aws_smithy_http_client::Connector;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorSettings};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_types::byte_stream::ByteStream;
use name_resolver::Names;
use tokio::time::timeout;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an answer may take to begin, and to go on.
pub(crate) const SILENCE_TIMEOUT: Duration = Duration::from_secs(30);

/// Why a server has not answered.
pub(crate) enum Failure {
    /// It may a moment later.
    Passing(String),
    /// It has refused for good.
    Denied(String),
}

/// Asks web servers. Redirects are not followed, and nothing is tried again.
#[derive(Debug)]
pub(crate) struct Web(Connector);

impl Web {
    pub(crate) fn new() -> Self {
        let settings = HttpConnectorSettings::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .build();
        Self(
            Connector::builder()
                .connector_settings(settings)
                .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
                .build_with_resolver(Names::from_system()),
        )
    }

    /// Asks for what is at `url`, or says in words why there is no answer.
    pub(crate) async fn get(
        &self,
        url: &str,
        headers: &[(&'static str, String)],
    ) -> Result<HttpResponse, String> {
        let mut request = HttpRequest::get(url).map_err(|error| error.to_string())?;
        for (name, value) in headers {
            request
                .headers_mut()
                .try_insert(*name, value.clone())
                .map_err(|_| format!("the header {name} cannot have such a value"))?;
        }
        match timeout(SILENCE_TIMEOUT, self.0.call(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => {
                let mut text = error.to_string();
                let mut source = std::error::Error::source(&error);
                while let Some(cause) = source {
                    text += ": ";
                    text += &cause.to_string();
                    source = cause.source();
                }
                Err(text)
            }
            Err(_) => Err(format!("no answer within {} s", SILENCE_TIMEOUT.as_secs())),
        }
    }
}

/// The header that asks for what comes from byte `start` on.
pub(crate) fn range(start: u64) -> Vec<(&'static str, String)> {
    match start {
        0 => Vec::new(),
        start => vec![("range", format!("bytes={start}-"))],
    }
}

/// An answer's body, if it has at most `limit` bytes: `None` if it has more.
pub(crate) async fn collect(
    response: HttpResponse,
    limit: usize,
) -> Result<Option<Vec<u8>>, String> {
    let mut body = ByteStream::new(response.into_body());
    let mut bytes = Vec::new();
    loop {
        match timeout(SILENCE_TIMEOUT, body.next()).await {
            Ok(Some(Ok(chunk))) if bytes.len() + chunk.len() > limit => return Ok(None),
            Ok(Some(Ok(chunk))) => bytes.extend_from_slice(&chunk),
            Ok(Some(Err(error))) => return Err(error.to_string()),
            Ok(None) => return Ok(Some(bytes)),
            Err(_) => {
                return Err(format!("nothing came for {} s", SILENCE_TIMEOUT.as_secs()));
            }
        }
    }
}

/// Whether an authority, with a port or without, is this host.
pub(crate) fn is_this_host(authority: &str) -> bool {
    let host = match authority.strip_prefix("[::1]") {
        Some("") => return true,
        Some(rest) => return rest.starts_with(':'),
        None => authority
            .split(':')
            .next()
            .expect("a split has at least one part"),
    };
    matches!(host, "127.0.0.1" | "localhost")
}
