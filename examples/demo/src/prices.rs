//! The stand-in for the price source: an HTTPS server on loopback, with a
//! certificate authority of its own.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

/// The name that the enclave knows it by.
pub(crate) const HOST: &str = "prices.example";
/// The folder that prices are in.
pub(crate) const PATH: &str = "/v1/";
/// The only price there is.
pub(crate) const PRICE: &str = "67012.50";
const PAIR: &str = "BTC-USD";

/// How long a connection may last.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);

/// The running server; it ends when this is dropped.
pub(crate) struct Prices {
    pub(crate) address: SocketAddr,
    /// Its authority's certificate, PEM.
    pub(crate) authority: String,
    _task: JoinSet<()>,
}

/// A certificate authority.
pub(crate) struct Authority {
    pub(crate) pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params
            .distinguished_name
            .push(DnType::CommonName, "Authority of the demo's price source");
        let pem = params.self_signed(&key)?.pem();
        let issuer = Issuer::new(params, key);
        Ok(Self { pem, issuer })
    }
}

impl Prices {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let authority = Authority::new().context("no certificate authority")?;
        let acceptor = acceptor(&authority).context("no certificate for the price source")?;
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .context("no port for the price source")?;
        let address = listener.local_addr()?;
        let mut task = JoinSet::new();
        task.spawn(serve(listener, acceptor));
        Ok(Self {
            address,
            authority: authority.pem,
            _task: task,
        })
    }
}

fn acceptor(authority: &Authority) -> anyhow::Result<TlsAcceptor> {
    let key = KeyPair::generate()?;
    let certificate =
        CertificateParams::new(vec![HOST.to_owned()])?.signed_by(&key, &authority.issuer)?;
    let private = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], private)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                // A connection that failed is its client's to report.
                if let Ok((stream, _)) = accepted {
                    let connection = connection(stream, acceptor.clone());
                    connections.spawn(timeout(CONNECTION_TIMEOUT, connection));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(stream: TcpStream, acceptor: TlsAcceptor) {
    let Ok(stream) = acceptor.accept(stream).await else {
        return;
    };
    let respond = service_fn(|request: Request<Incoming>| async move {
        Ok::<_, Infallible>(price(request.uri().path()))
    });
    // As above.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), respond)
        .await;
}

fn price(path: &str) -> Response<Full<Bytes>> {
    if path.strip_prefix(PATH) == Some(PAIR) {
        let quote = serde_json::json!({ "pair": PAIR, "price": PRICE });
        Response::new(Full::from(quote.to_string()))
    } else {
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::NOT_FOUND;
        response
    }
}

/// What the deployment decides, and the image does not.
pub(crate) fn runtime_config(authority: &str) -> Vec<u8> {
    let upstream = format!("https://{HOST}:443{PATH}");
    let config = serde_json::json!({ "upstream": upstream, "ca": authority });
    config.to_string().into_bytes()
}
