//! Images on web servers: one request, and another from where it broke off.

use std::time::Duration;

use aws_smithy_http_client::Connector;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorSettings};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_types::byte_stream::ByteStream;
use tokio::time::{sleep, timeout};

use super::partial::Partial;
use super::{FetchError, Progress};
use crate::names::Names;

/// How long a connection may take to be made, and the answer to begin or go on.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const SILENCE_TIMEOUT: Duration = Duration::from_secs(30);
/// How often in a row it may break off without a byte.
const ATTEMPTS: u32 = 5;
/// The first pause between these, which doubles.
const PAUSE: Duration = Duration::from_millis(500);

/// Reads what is missing. Redirects are not followed: the configuration names the
/// place itself.
pub(super) async fn read(
    url: &str,
    partial: &mut Partial,
    progress: Progress<'_>,
) -> Result<(), FetchError> {
    let settings = HttpConnectorSettings::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .build();
    let connector = Connector::builder()
        .connector_settings(settings)
        .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
        .build_with_resolver(Names::from_system());
    let mut failures = 0;
    loop {
        let before = partial.length();
        let Some(reason) = attempt(&connector, url, partial, progress).await? else {
            return Ok(());
        };
        failures = if partial.length() > before {
            1
        } else {
            failures + 1
        };
        if failures >= ATTEMPTS {
            return Err(FetchError::Interrupted {
                location: url.to_owned(),
                reason,
                bytes: partial.length(),
            });
        }
        tracing::debug!(url, reason, "an image has broken off");
        sleep(
            PAUSE
                .saturating_mul(1 << failures)
                .mul_f64(0.5 + fastrand::f64()),
        )
        .await;
    }
}

/// Reads on; the answer is why that came to no end, if it may yet.
async fn attempt(
    connector: &Connector,
    url: &str,
    partial: &mut Partial,
    progress: Progress<'_>,
) -> Result<Option<String>, FetchError> {
    if partial.size == Some(partial.length()) && partial.length() > 0 {
        return Ok(None);
    }
    let response = match ask(connector, url, partial.length()).await {
        Ok(response) => response,
        Err(reason) => return Ok(Some(reason)),
    };
    let location = || url.to_owned();
    match response.status().as_u16() {
        206 => {}
        // It does not serve ranges, or serves all of it.
        200 => partial.restart()?,
        404 | 410 => {
            return Err(FetchError::NotFound {
                location: location(),
            });
        }
        status @ (401 | 403) => {
            return Err(FetchError::Denied {
                location: location(),
                reason: format!("the server answers with status {status}"),
                permission: "reading it",
                whom: "this host, which sends no credentials",
            });
        }
        // What is here is not the beginning of what is there.
        416 => {
            partial.restart()?;
            return Ok(Some("the server has no such range".to_owned()));
        }
        status => return Ok(Some(format!("the server answers with status {status}"))),
    }
    let left = response
        .headers()
        .get("content-length")
        .and_then(|length| length.parse::<u64>().ok());
    if let Some(left) = left {
        partial.expect(partial.length().saturating_add(left))?;
    }
    let mut body = ByteStream::new(response.into_body());
    loop {
        match timeout(SILENCE_TIMEOUT, body.next()).await {
            Ok(Some(Ok(bytes))) => {
                partial.append(bytes).await?;
                progress(partial.length(), partial.size);
            }
            Ok(Some(Err(error))) => return Ok(Some(error.to_string())),
            Ok(None) => break,
            Err(_) => {
                let seconds = SILENCE_TIMEOUT.as_secs();
                return Ok(Some(format!("nothing came for {seconds} s")));
            }
        }
    }
    match partial.size {
        Some(size) if partial.length() < size => Ok(Some("the answer broke off".to_owned())),
        _ => Ok(None),
    }
}

async fn ask(connector: &Connector, url: &str, start: u64) -> Result<HttpResponse, String> {
    let mut request = HttpRequest::get(url).map_err(|error| error.to_string())?;
    if start > 0 {
        request
            .headers_mut()
            .insert("range", format!("bytes={start}-"));
    }
    match timeout(SILENCE_TIMEOUT, connector.call(request)).await {
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
