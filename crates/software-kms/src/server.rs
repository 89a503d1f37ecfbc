//! The KMS behind a socket.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::debug;

use crate::error::{Kind, Refusal};
use crate::kms::SoftwareKms;

/// Most bytes of a request's body.
pub const MAX_REQUEST_BYTES: usize = 512 * 1024;
/// Most connections at a time; a further one waits.
const MAX_CONNECTIONS: usize = 256;
/// How long the head of a request may take, and its body.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves the KMS over HTTP until the future is dropped.
pub async fn serve(listener: TcpListener, kms: Arc<SoftwareKms>) -> io::Result<()> {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return Ok(());
        };
        let (stream, _) = listener.accept().await?;
        while connections.try_join_next().is_some() {}
        let kms = Arc::clone(&kms);
        connections.spawn(async move {
            let _place = place;
            serve_connection(stream, &kms).await;
        });
    }
}

/// Serves the KMS on a connection until it ends: HTTP, in TLS or not.
pub async fn serve_connection<S>(stream: S, kms: &SoftwareKms)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let service = service_fn(|request| async move {
        let response = match whole(request).await {
            Ok(request) => kms.handle(&request),
            Err(refusal) => refusal.response(),
        };
        Ok::<_, Infallible>(response.map(Full::new))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        debug!(%error, "a connection to the software KMS failed");
    }
}

async fn whole(request: Request<Incoming>) -> Result<Request<Bytes>, Refusal> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, MAX_REQUEST_BYTES).collect();
    match timeout(REQUEST_TIMEOUT, body).await {
        Ok(Ok(body)) => Ok(Request::from_parts(head, body.to_bytes())),
        Ok(Err(error)) => Err(Refusal::new(Kind::Serialization, error.to_string())),
        Err(_) => Err(Refusal::new(Kind::Serialization, "the body did not come")),
    }
}
