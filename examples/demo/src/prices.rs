//! The stand-in for the price source: an HTTPS server on loopback, with a
//! certificate authority of its own.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, anyhow};
use aws_lc_rs::rand::fill;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use price_oracle::source_key::{SIGNATURE_HEADER, SourceKey, TIME_HEADER};
use time::OffsetDateTime;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use demo::authority::Authority;

/// The name that the enclave knows it by.
pub(crate) const HOST: &str = "prices.example";
/// The folder that prices are in.
pub(crate) const PATH: &str = "/v1/";
/// What everybody may know, and its price.
pub(crate) const PAIR: &str = "BTC-USD";
pub(crate) const PRICE: &str = "67012.50";
/// What only those may know who sign with the source's key.
pub(crate) const SIGNED_PAIR: &str = "ETH-USD";
pub(crate) const SIGNED_PRICE: &str = "3512.25";
/// What its authority is called.
pub(crate) const AUTHORITY: &str = "Authority of the demo's price source";

/// The bytes of the source's key; it is the text that these have in hexadecimal.
const KEY_BYTES: usize = 32;
/// How far a signed request's time may be from now, in seconds.
const MAX_SKEW: u64 = 60;

/// How long a connection may last.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);

/// The running server; it ends when this is dropped.
pub(crate) struct Prices {
    pub(crate) address: SocketAddr,
    /// Its authority's certificate, PEM.
    pub(crate) authority: String,
    /// The key that it gives to whom it knows.
    pub(crate) key: String,
    _task: JoinSet<()>,
}

impl Prices {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let authority = Authority::new(AUTHORITY).context("no certificate authority")?;
        let acceptor = authority.acceptor(&[HOST]);
        let acceptor = acceptor.context("no certificate for the price source")?;
        let mut bytes = [0; KEY_BYTES];
        fill(&mut bytes).map_err(|_| anyhow!("no random bytes"))?;
        let key = hex::encode(bytes);
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .context("no port for the price source")?;
        let address = listener.local_addr()?;
        let mut task = JoinSet::new();
        task.spawn(serve(listener, acceptor, SourceKey::new(key.as_bytes())));
        Ok(Self {
            address,
            authority: authority.pem().to_owned(),
            key,
            _task: task,
        })
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, key: SourceKey) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                // A connection that failed is its client's to report.
                if let Ok((stream, _)) = accepted {
                    let connection = connection(stream, acceptor.clone(), key.clone());
                    connections.spawn(timeout(CONNECTION_TIMEOUT, connection));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(stream: TcpStream, acceptor: TlsAcceptor, key: SourceKey) {
    let Ok(stream) = acceptor.accept(stream).await else {
        return;
    };
    let respond = service_fn(|request: Request<Incoming>| {
        let response = respond(&request, &key);
        async move { Ok::<_, Infallible>(response) }
    });
    // As above.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), respond)
        .await;
}

fn respond(request: &Request<Incoming>, key: &SourceKey) -> Response<Full<Bytes>> {
    let price = match request.uri().path().strip_prefix(PATH) {
        Some(PAIR) => Ok((PAIR, PRICE)),
        Some(SIGNED_PAIR) if is_signed(request, key) => Ok((SIGNED_PAIR, SIGNED_PRICE)),
        Some(SIGNED_PAIR) => Err(StatusCode::UNAUTHORIZED),
        _ => Err(StatusCode::NOT_FOUND),
    };
    match price {
        Ok((pair, price)) => {
            let quote = serde_json::json!({ "pair": pair, "price": price });
            Response::new(Full::from(quote.to_string()))
        }
        Err(status) => {
            let mut response = Response::new(Full::default());
            *response.status_mut() = status;
            response
        }
    }
}

fn is_signed(request: &Request<Incoming>, key: &SourceKey) -> bool {
    let header = |name| request.headers().get(name)?.to_str().ok();
    let time = header(TIME_HEADER).and_then(|time| time.parse::<i64>().ok());
    let (Some(time), Some(signature)) = (time, header(SIGNATURE_HEADER)) else {
        return false;
    };
    let skew = OffsetDateTime::now_utc().unix_timestamp().abs_diff(time);
    skew <= MAX_SKEW && key.has_signed(request.uri().path(), time, signature)
}

/// What the deployment decides, and the image does not.
pub(crate) fn runtime_config(authority: &str) -> Vec<u8> {
    let upstream = format!("https://{HOST}:443{PATH}");
    let config = serde_json::json!({ "upstream": upstream, "ca": authority });
    config.to_string().into_bytes()
}
