//! One HTTP/1.1 request on a connection of its own, with a bounded answer.

use std::convert::Infallible;
use std::future::pending;
use std::pin::pin;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};

/// Why there was no answer.
#[derive(Debug, Error)]
pub enum HttpError {
    /// The connection failed, or what came is not HTTP.
    #[error("the HTTP exchange failed: {0}")]
    Exchange(#[from] hyper::Error),
    /// The answer's body is too large.
    #[error("the answer has more than {limit} bytes")]
    TooLarge {
        /// How many were allowed.
        limit: usize,
    },
}

/// Sends `request` over `stream` and reads an answer of at most `limit` bytes.
/// The caller sets the deadline.
pub async fn exchange<S>(
    stream: S,
    request: Request<Full<Bytes>>,
    limit: usize,
) -> Result<Response<Bytes>, HttpError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async {
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, limit)
            .collect()
            .await
            .map_err(|error| match error.downcast::<hyper::Error>() {
                Ok(error) => HttpError::Exchange(*error),
                Err(other) => {
                    debug_assert!(other.is::<LengthLimitError>());
                    HttpError::TooLarge { limit }
                }
            })?;
        Ok(Response::from_parts(head, body.to_bytes()))
    };
    // The connection only drives the exchange, which learns of its failures.
    let connection = async {
        let _ = connection.await;
        pending::<Infallible>().await
    };
    let (exchange, connection) = (pin!(exchange), pin!(connection));
    tokio::select! {
        result = exchange => result,
        never = connection => match never {},
    }
}
