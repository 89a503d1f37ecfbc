//! Images on web servers: one request, and another from where it broke off.

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_types::byte_stream::ByteStream;
use tokio::time::timeout;

use crate::Progress;
use crate::attempts::{is_last, pause};
use crate::error::FetchError;
use crate::partial::Partial;
use crate::web::{Failure, SILENCE_TIMEOUT, Web, range};

/// A server that has the image.
pub(crate) trait Server {
    /// Asks for the image from byte `start` on.
    fn ask(&mut self, start: u64) -> impl Future<Output = Result<HttpResponse, Failure>> + Send;

    /// What is missing where it may not be read, and to whom.
    fn permission(&self) -> (&'static str, &'static str);
}

/// The server of an URL. Redirects are not followed: the configuration names the
/// place itself.
pub(crate) struct Page<'a> {
    pub(crate) web: Web,
    pub(crate) url: &'a str,
}

impl Server for Page<'_> {
    async fn ask(&mut self, start: u64) -> Result<HttpResponse, Failure> {
        let answer = self.web.get(self.url, &range(start)).await;
        answer.map_err(Failure::Passing)
    }

    fn permission(&self) -> (&'static str, &'static str) {
        ("reading it", "this host, which sends no credentials")
    }
}

/// Reads what is missing.
pub(crate) async fn read(
    server: &mut impl Server,
    partial: &mut Partial,
    progress: Progress<'_>,
) -> Result<(), FetchError> {
    let mut failures = 0;
    loop {
        let before = partial.length();
        let Some(reason) = attempt(server, partial, progress).await? else {
            return Ok(());
        };
        failures = if partial.length() > before {
            1
        } else {
            failures + 1
        };
        if is_last(failures) {
            return Err(FetchError::Interrupted {
                location: partial.location.to_string(),
                reason,
                bytes: partial.length(),
            });
        }
        tracing::debug!(image = %partial.location, reason, "an image has broken off");
        pause(failures).await;
    }
}

/// Reads on; the answer is why that came to no end, if it may yet.
async fn attempt(
    server: &mut impl Server,
    partial: &mut Partial,
    progress: Progress<'_>,
) -> Result<Option<String>, FetchError> {
    if partial.size == Some(partial.length()) && partial.length() > 0 {
        return Ok(None);
    }
    let start = partial.length();
    let (permission, whom) = server.permission();
    let location = partial.location.to_string();
    let denied = |reason| FetchError::Denied {
        location: location.clone(),
        reason,
        permission,
        whom,
    };
    let response = match server.ask(start).await {
        Ok(response) => response,
        Err(Failure::Passing(reason)) => return Ok(Some(reason)),
        Err(Failure::Denied(reason)) => return Err(denied(reason)),
    };
    match response.status().as_u16() {
        206 if begins_elsewhere(&response, start) => {
            return Ok(Some("the server sent another range".to_owned()));
        }
        206 => {}
        // It does not serve ranges, or serves all of it.
        200 => partial.restart()?,
        404 | 410 => return Err(FetchError::NotFound { location }),
        status @ (401 | 403) => {
            return Err(denied(format!("the server answers with status {status}")));
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

/// Whether an answer says that it begins somewhere else: RFC 9110, section 14.4.
fn begins_elsewhere(response: &HttpResponse, start: u64) -> bool {
    let range = response.headers().get("content-range");
    let range = range.and_then(|range| range.strip_prefix("bytes "));
    let first = range.and_then(|range| range.split_once('-')?.0.parse::<u64>().ok());
    first.is_some_and(|first| first != start)
}
