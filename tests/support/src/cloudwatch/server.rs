//! HTTP whose answers can be cut off at any byte.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::DATE;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::Shared;

/// What is sent back.
pub(super) enum Answer {
    /// A whole answer.
    Response(Response<Full<Bytes>>),
    /// Only these bytes, then the end.
    Break(&'static [u8]),
}

/// Between the server and the connection.
const BUFFER: usize = 64 * 1024;

/// Serves one connection to its end.
pub(super) async fn connection(stream: impl AsyncRead + AsyncWrite, shared: Arc<Shared>) {
    // What breaks a connection is not HTTP any more.
    let broken = Arc::new(Mutex::new(None));
    let told = Arc::clone(&broken);
    let service = service_fn(move |request| {
        let (shared, broken) = (Arc::clone(&shared), Arc::clone(&told));
        async move {
            let response = match whole(&shared, request).await {
                Answer::Response(mut response) => {
                    let date = shared.date();
                    response.headers_mut().insert(DATE, date);
                    response
                }
                Answer::Break(bytes) => {
                    *broken.lock().unwrap_or_else(PoisonError::into_inner) = Some(bytes);
                    // Nobody sees it: the connection ends before.
                    Response::new(Full::default())
                }
            };
            Ok::<_, Infallible>(response)
        }
    });
    let (near, far) = tokio::io::duplex(BUFFER);
    let server = tokio::spawn(async move {
        // A client that goes away is none of our business.
        let _ = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(far), service)
            .await;
    });
    let (mut from_server, mut to_server) = tokio::io::split(near);
    let (mut read, mut write) = tokio::io::split(stream);
    let requests = tokio::io::copy(&mut read, &mut to_server);
    let answers = async {
        let mut buffer = vec![0; BUFFER];
        while let Ok(count @ 1..) = from_server.read(&mut buffer).await {
            let cut = broken.lock().unwrap_or_else(PoisonError::into_inner).take();
            let bytes = cut.unwrap_or(buffer.get(..count).unwrap_or_default());
            if write.write_all(bytes).await.is_err() || cut.is_some() {
                return;
            }
        }
    };
    tokio::select! {
        _ = requests => {}
        () = answers => {}
    }
    server.abort();
}

/// Reads the whole request, and answers it.
async fn whole(shared: &Shared, request: Request<Incoming>) -> Answer {
    let (head, body) = request.into_parts();
    match body.collect().await {
        Ok(body) => shared.answer(head, body.to_bytes()).await,
        Err(_) => Answer::Break(b""),
    }
}
