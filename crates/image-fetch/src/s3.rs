//! Images in S3: several parts at a time, written in order.

use std::collections::VecDeque;

use aws_clients::{Client, Error};
use aws_endpoint::Object;
use tokio::task::JoinHandle;

use crate::Progress;
use crate::attempts::{is_last, pause};
use crate::error::FetchError;
use crate::partial::Partial;

/// Bytes of a part.
const PART: u64 = 4 << 20;
/// Parts that are on their way at a time, and so are held in memory.
const PARALLEL: usize = 4;

/// A part that is on its way; dropping it gives it up.
struct Part(JoinHandle<Result<Vec<u8>, Error>>);

impl Drop for Part {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Reads what is missing.
pub(crate) async fn read(
    object: &Object,
    region: Option<&str>,
    partial: &mut Partial,
    progress: Progress<'_>,
) -> Result<(), FetchError> {
    let location = partial.location.clone();
    let client = Client::new(region)
        .await
        .map_err(|source| FetchError::NoClient {
            location: location.to_string(),
            source,
        })?;
    let failed = |error: Error, bytes| FetchError::from_aws(&location, &error, bytes);
    let head = client
        .head(object)
        .await
        .map_err(|error| failed(error, partial.length()))?;
    partial.expect(head.size)?;
    let mut next = partial.length();
    let mut parts = VecDeque::new();
    progress(partial.length(), Some(head.size));
    loop {
        while parts.len() < PARALLEL && next < head.size {
            let end = (next + PART).min(head.size);
            let (client, object, etag) = (client.clone(), object.clone(), head.etag.clone());
            parts.push_back(Part(tokio::spawn(async move {
                part(&client, &object, next, end, etag.as_deref()).await
            })));
            next = end;
        }
        let Some(mut part) = parts.pop_front() else {
            return Ok(());
        };
        let bytes = match (&mut part.0).await {
            Ok(result) => result.map_err(|error| failed(error, partial.length()))?,
            Err(error) => {
                return Err(FetchError::Interrupted {
                    location: location.to_string(),
                    reason: error.to_string(),
                    bytes: partial.length(),
                });
            }
        };
        partial.append(bytes.into()).await?;
        progress(partial.length(), Some(head.size));
    }
}

/// One part, whole.
async fn part(
    client: &Client,
    object: &Object,
    start: u64,
    end: u64,
    etag: Option<&str>,
) -> Result<Vec<u8>, Error> {
    let mut attempt = 1;
    loop {
        match client.part(object, start, end, etag).await {
            Err(error) if error.is_transient() && !is_last(attempt) => {
                tracing::debug!(%error, start, "a part of an image has broken off");
            }
            result => return result,
        }
        pause(attempt).await;
        attempt += 1;
    }
}
