//! What comes back.

use std::error::Error as StdError;
use std::time::Duration;

use aws_smithy_types::byte_stream::ByteStream;
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use tokio::time::timeout;

use crate::endpoint::Service;
use crate::error::Error;

/// How long an answer may be silent once it has begun.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(30);

/// An answer held in memory.
#[derive(Debug)]
pub struct Response {
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// An answer whose body is read piece by piece.
#[derive(Debug)]
pub struct Download {
    service: Service,
    operation: &'static str,
    headers: HeaderMap,
    body: ByteStream,
}

impl Download {
    pub(crate) fn new(
        service: Service,
        operation: &'static str,
        headers: HeaderMap,
        body: ByteStream,
    ) -> Self {
        Self {
            service,
            operation,
            headers,
            body,
        }
    }

    /// The headers.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// A header's value, if it is there and is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The next bytes, or `None` at the end. Cancellation safe.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let broken = |reason| Error::Broken {
            service: self.service,
            operation: self.operation,
            reason,
        };
        match timeout(SILENCE_TIMEOUT, self.body.next()).await {
            Ok(None) => Ok(None),
            Ok(Some(Ok(bytes))) => Ok(Some(bytes)),
            Ok(Some(Err(error))) => Err(broken(chain(&error))),
            Err(_) => {
                let seconds = SILENCE_TIMEOUT.as_secs();
                Err(broken(format!("nothing came for {seconds} s")))
            }
        }
    }

    /// The whole body, of at most `limit` bytes.
    pub(crate) async fn collect(mut self, limit: usize) -> Result<Response, Error> {
        let mut body = BytesMut::new();
        while let Some(bytes) = self.next().await? {
            if body.len() + bytes.len() > limit {
                return Err(Error::TooLarge {
                    service: self.service,
                    operation: self.operation,
                    limit,
                });
            }
            body.extend_from_slice(&bytes);
        }
        Ok(Response {
            headers: self.headers,
            body: body.freeze(),
        })
    }
}

/// An error and its causes in one line, each said once.
pub(crate) fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        if !text.ends_with(&words) {
            text += ": ";
            text += &words;
        }
        source = cause.source();
    }
    text
}

/// The first cause of this type.
pub(crate) fn find<'a, T: StdError + 'static>(
    error: &'a (dyn StdError + 'static),
) -> Option<&'a T> {
    let mut causes = std::iter::successors(error.source(), |&error| error.source());
    causes.find_map(|cause| cause.downcast_ref())
}
