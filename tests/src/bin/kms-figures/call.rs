//! Calls over HTTP.

use anyhow::{Context, ensure};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

/// A connection that carries one request after the other.
pub(crate) async fn connection<S>(stream: S) -> anyhow::Result<SendRequest<Full<Bytes>>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, driven) = handshake(TokioIo::new(stream)).await?;
    // How it ends is the business of who sends over it.
    tokio::spawn(async move {
        let _ = driven.await;
    });
    Ok(sender)
}

/// The body of an answer of status 200.
pub(crate) async fn answer(
    connection: &mut SendRequest<Full<Bytes>>,
    request: Request<Bytes>,
) -> anyhow::Result<Bytes> {
    connection.ready().await?;
    let (head, body) = connection
        .send_request(request.map(Full::new))
        .await?
        .into_parts();
    let body = body.collect().await.context("no whole answer")?.to_bytes();
    ensure!(
        head.status == StatusCode::OK,
        "{}: {}",
        head.status,
        String::from_utf8_lossy(&body)
    );
    Ok(body)
}
