//! The service and everything that it talks to, on loopback sockets: a DNS
//! server, a TLS source, the enclave's API in front of the software NSM.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use attestation::{Nonce, Policy, Roots, Verifier};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ProtocolConfig, ResolverConfig,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::op::{Message, MessageType, ResponseCode};
use hickory_resolver::proto::rr::rdata::A;
use hickory_resolver::proto::rr::{RData, Record};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use measurements::{Measurements, Pcr};
use nsm::Nsm;
use price_oracle::enclave_api::EnclaveApi;
use price_oracle::http::exchange;
use price_oracle::names::Names;
use price_oracle::probe::Probe;
use price_oracle::source::Source;
use price_oracle::{RuntimeConfig, Service, SigningKey};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use software_nsm::{Identity, SoftwareNsm, TestRoot};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream, UdpSocket, UnixListener};
use tokio::sync::{Notify, oneshot};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

/// The one name that the DNS server knows.
pub(crate) const SOURCE: &str = "prices.example";
/// What the software NSM says was measured.
pub(crate) const MEASUREMENTS: Measurements = Measurements {
    pcr0: Pcr::new([1; 48]),
    pcr1: Pcr::new([2; 48]),
    pcr2: Pcr::new([3; 48]),
    pcr8: None,
};

/// Where the world is not as it should be.
#[derive(Default)]
pub(crate) struct Faults {
    /// The source's host name in the configuration.
    pub(crate) source_name: Option<&'static str>,
    /// The configuration trusts an authority that did not sign the source's certificate.
    pub(crate) other_authority: bool,
    /// Nothing listens where the API should.
    pub(crate) no_api: bool,
}

pub(crate) struct World {
    pub(crate) address: SocketAddr,
    pub(crate) api: EnclaveApi,
    /// The key that documents must carry.
    pub(crate) public_key: Vec<u8>,
    /// Told when the source has a request for `HELD-USD`, and then waited for.
    pub(crate) held: Arc<(Notify, Notify)>,
    pub(crate) stop: oneshot::Sender<()>,
    pub(crate) served: JoinHandle<()>,
    roots: Roots,
    _folder: TempDir,
}

impl World {
    pub(crate) async fn start(faults: Faults) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let held = Arc::new((Notify::new(), Notify::new()));
        let (port, authority) = start_source(held.clone()).await;
        let authority = if faults.other_authority {
            Authority::new().pem
        } else {
            authority
        };
        let host = faults.source_name.unwrap_or(SOURCE);
        let config = serde_json::json!({
            "upstream": format!("https://{host}:{port}/v1/"),
            "ca": authority,
        });
        let config = RuntimeConfig::parse(config.to_string().as_bytes()).unwrap();
        let names = names(start_dns().await);
        let (api, roots) = start_api(folder.path()).await;
        let api = if faults.no_api { closed_port() } else { api };
        let key = SigningKey::generate().unwrap();
        let public_key = key.public_key_der().to_vec();
        let service = Service {
            key,
            source: Source::new(config, names.clone(), None).unwrap(),
            api: EnclaveApi::new(api),
            probe: Probe {
                host: "outside.example".into(),
                port: 443,
                address: closed_port(),
                proxy: Some(start_proxy("403 Forbidden", "no rule allows it").await),
                names,
            },
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(service.serve(listener, async {
            stopped.await.unwrap();
        }));
        Self {
            address,
            api: EnclaveApi::new(api),
            public_key,
            held,
            stop,
            served,
            roots,
            _folder: folder,
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Response<Bytes> {
        self.request("GET", path).await
    }

    pub(crate) async fn request(&self, method: &str, path: &str) -> Response<Bytes> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost")
            .body(Full::default())
            .unwrap();
        exchange(stream, request, 64 * 1024).await.unwrap()
    }

    /// Verifies a document as a client does, and returns the attested key.
    pub(crate) fn verify(&self, document: &[u8], nonce: &[u8]) -> Vec<u8> {
        let policy = Policy::builder()
            .measurements(MEASUREMENTS)
            .build()
            .unwrap();
        let accepted = Verifier::new(self.roots.clone())
            .verify(document, &policy, Nonce::Fresh(nonce))
            .outcome
            .unwrap();
        accepted.public_key().unwrap().to_vec()
    }
}

/// A port of the loopback address that nothing listens on.
pub(crate) fn closed_port() -> SocketAddr {
    // Port 1 needs privileges to bind, and no service uses it any more.
    SocketAddr::from((Ipv4Addr::LOCALHOST, 1))
}

pub(crate) fn names(server: SocketAddr) -> Names {
    let mut connection = ConnectionConfig::new(ProtocolConfig::Udp);
    connection.port = server.port();
    let server = NameServerConfig::new(server.ip(), true, vec![connection]);
    let config = ResolverConfig::from_name_servers(vec![server]);
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    builder.options_mut().ip_strategy = LookupIpStrategy::Ipv4Only;
    builder.options_mut().attempts = 1;
    builder.build().unwrap().into()
}

/// A DNS server that knows [`SOURCE`] and has no other name, as the
/// enclave's own does.
pub(crate) async fn start_dns() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 1024];
        loop {
            let (length, peer) = socket.recv_from(&mut buffer).await.unwrap();
            let mut message = Message::from_vec(&buffer[..length]).unwrap();
            let name = message.queries[0].name().clone();
            message.metadata.message_type = MessageType::Response;
            if name.to_ascii() == format!("{SOURCE}.") {
                let address = RData::A(A(Ipv4Addr::LOCALHOST));
                message.add_answer(Record::from_rdata(name, 60, address));
            } else {
                message.metadata.response_code = ResponseCode::NXDomain;
            }
            let answer = message.to_vec().unwrap();
            socket.send_to(&answer, peer).await.unwrap();
        }
    });
    address
}

/// A proxy that gives every request the same answer.
pub(crate) async fn start_proxy(status: &'static str, body: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(accept_each(listener, move |stream| async move {
        let respond = service_fn(move |_: Request<Incoming>| async move {
            let code: u16 = status[..3].parse().unwrap();
            let mut response = Response::new(Full::<Bytes>::from(body));
            *response.status_mut() = StatusCode::from_u16(code).unwrap();
            Ok::<_, Infallible>(response)
        });
        let _ = http1::Builder::new()
            .serve_connection(TokioIo::new(stream), respond)
            .await;
    }));
    address
}

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        Self { pem, issuer }
    }
}

/// The source; the pair that it is asked for says how it behaves.
async fn start_source(held: Arc<(Notify, Notify)>) -> (u16, String) {
    let authority = Authority::new();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec![SOURCE.to_owned()])
        .unwrap()
        .signed_by(&key, &authority.issuer)
        .unwrap();
    let tls = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(accept_each(listener, move |stream| {
        let (acceptor, held) = (acceptor.clone(), held.clone());
        async move {
            // A client that trusts somebody else breaks off here.
            let Ok(stream) = acceptor.accept(stream).await else {
                return;
            };
            let respond = service_fn(move |request: Request<Incoming>| {
                let held = held.clone();
                async move { Ok::<_, Infallible>(price(&request, &held).await) }
            });
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), respond)
                .await;
        }
    }));
    (port, authority.pem)
}

async fn price(request: &Request<Incoming>, held: &(Notify, Notify)) -> Response<Full<Bytes>> {
    let pair = request.uri().path().strip_prefix("/v1/").unwrap();
    let quote = |pair: &str| format!(r#"{{"pair":"{pair}","price":"67012.50"}}"#);
    let body = match pair {
        "BTC-USD" => quote(pair),
        "HELD-USD" => {
            held.0.notify_one();
            held.1.notified().await;
            quote(pair)
        }
        "HANG-USD" => std::future::pending().await,
        "LIE-USD" => quote("BTC-USD"),
        "TEXT-USD" => "67012.50".to_owned(),
        "FREE-USD" => quote(pair).replace("67012.50", "free"),
        "HUGE-USD" => "7".repeat(1024 * 1024),
        _ => {
            let mut response = Response::new(Full::default());
            *response.status_mut() = StatusCode::NOT_FOUND;
            return response;
        }
    };
    Response::new(Full::from(body))
}

/// The enclave's API, answered by the software NSM over its socket.
async fn start_api(folder: &Path) -> (SocketAddr, Roots) {
    let root = TestRoot::generate().unwrap();
    let roots = Roots::from_pem(root.certificate_pem().as_bytes()).unwrap();
    let identity = Identity {
        instance_id: "i-0123456789abcdef0".into(),
        enclave_id: "enc0123456789abcdef".into(),
        measurements: Some(MEASUREMENTS),
    };
    let module = SoftwareNsm::new(identity, root).unwrap();
    let socket = folder.join("nsm");
    let nsm = UnixListener::bind(&socket).unwrap();
    tokio::spawn(software_nsm::serve(nsm, module));

    let listener = TcpListener::bind((IpAddr::V4(Ipv4Addr::LOCALHOST), 0))
        .await
        .unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(accept_each(listener, move |stream| {
        let socket = socket.clone();
        async move {
            let respond = service_fn(move |request: Request<Incoming>| {
                let socket = socket.clone();
                async move { Ok::<_, Infallible>(document(request, &socket).await) }
            });
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), respond)
                .await;
        }
    }));
    (address, roots)
}

/// Takes any key but one.
async fn name(request: Request<Incoming>) -> Response<Full<Bytes>> {
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    let key = STANDARD.decode(body["public_key"].as_str().unwrap());
    let (status, body) = match key.unwrap().as_slice() {
        b"another" => (
            StatusCode::CONFLICT,
            r#"{"error":"it is another one already"}"#,
        ),
        _ => (StatusCode::NO_CONTENT, ""),
    };
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response
}

async fn document(request: Request<Incoming>, socket: &Path) -> Response<Full<Bytes>> {
    assert_eq!(request.headers()["enclave-api"], "1");
    if request.uri().path() == "/v1/identity" {
        assert_eq!(request.method(), "PUT");
        return name(request).await;
    }
    assert_eq!(request.method(), "POST");
    assert_eq!(request.uri().path(), "/v1/attestation");
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    let field = |name: &str| STANDARD.decode(body[name].as_str().unwrap()).unwrap();
    let (nonce, public_key) = (field("nonce"), field("public_key"));
    if nonce == b"refuse" {
        let mut response = Response::new(Full::from(r#"{"error":"the NSM is busy"}"#));
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        return response;
    }
    let socket = socket.to_owned();
    // The NSM's client blocks, as the device does.
    let document = spawn_blocking(move || {
        Nsm::socket(&socket)
            .unwrap()
            .attestation(None, Some(&nonce), Some(&public_key))
            .unwrap()
    });
    Response::new(Full::from(document.await.unwrap()))
}

async fn accept_each<F>(listener: TcpListener, serve: impl Fn(TcpStream) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        tokio::spawn(serve(stream));
    }
}
