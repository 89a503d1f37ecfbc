//! Serves metrics over HTTP, to this host alone.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::response;
use crate::socket::SocketError;
use crate::status::Board;

/// Most connections at a time; further ones wait to be accepted.
const MAX_CONNECTIONS: usize = 8;
/// How long a request may take to arrive, and a connection to stay open.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(120);
/// How long to wait after an error that the next connection would meet as well.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A loopback address: metrics are for this host alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetricsAddress(pub SocketAddr);

impl FromStr for MetricsAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse::<SocketAddr>() {
            Ok(address) if address.ip().is_loopback() => Ok(Self(address)),
            Ok(_) => Err("metrics are served on a loopback address only, as 127.0.0.1:9464".into()),
            Err(_) => Err("write ADDR:PORT, as in 127.0.0.1:9464".into()),
        }
    }
}

/// Listens at the address, and serves `GET /metrics` until the future is dropped.
pub(crate) async fn listen(
    MetricsAddress(address): MetricsAddress,
    board: Arc<Board>,
) -> Result<impl Future<Output = ()>, SocketError> {
    let listener = TcpListener::bind(address).await;
    let listener = listener.map_err(SocketError::at(address))?;
    Ok(serve(listener, board))
}

async fn serve(listener: TcpListener, board: Arc<Board>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "cannot accept a connection for metrics");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        let board = Arc::clone(&board);
        connections.spawn(async move {
            let service = service_fn(move |request| {
                let response = answer(&request, &board);
                async move { Ok::<_, Infallible>(response) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(REQUEST_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            if let Ok(Err(error)) = timeout(CONNECTION_TIMEOUT, connection).await {
                debug!(%error, "a connection for metrics has failed");
            }
            drop(place);
        });
    }
}

fn answer(request: &Request<Incoming>, board: &Board) -> Response<Full<Bytes>> {
    if (request.method(), request.uri().path()) == (&Method::GET, "/metrics") {
        return response(&board.read());
    }
    let mut response = Response::new(Full::from("use GET /metrics\n"));
    *response.status_mut() = StatusCode::NOT_FOUND;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_served_on_loopback_addresses_only() {
        assert!("127.0.0.1:0".parse::<MetricsAddress>().is_ok());
        assert!("[::1]:9464".parse::<MetricsAddress>().is_ok());
        for bad in ["", "9464", "0.0.0.0:9464", "10.0.0.1:80"] {
            assert!(bad.parse::<MetricsAddress>().is_err(), "{bad}");
        }
    }
}
