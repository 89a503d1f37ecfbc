//! Servers that answer for an enclave, well or badly.

use std::sync::{Arc, Mutex};

use attestation::{Purpose, Roots};
use measurements::{Measurements, Pcr};
use nsm::{Request, Response};
use rcgen::{CertificateParams, Issuer, KeyPair};
use software_nsm::{Identity, SoftwareNsm, TestRoot};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

pub(crate) const IMAGE: Measurements = Measurements {
    pcr0: Pcr::new([1; 48]),
    pcr1: Pcr::new([2; 48]),
    pcr2: Pcr::new([3; 48]),
    pcr8: None,
};

/// An enclave under a root of its own.
#[derive(Clone)]
pub(crate) struct Enclave {
    module: Arc<Mutex<SoftwareNsm>>,
    pub(crate) root_pem: String,
}

impl Enclave {
    pub(crate) fn new() -> Self {
        let root = TestRoot::generate().unwrap();
        let root_pem = root.certificate_pem().to_owned();
        Self {
            module: Arc::new(Mutex::new(Self::module_under(root))),
            root_pem,
        }
    }

    fn module_under(root: TestRoot) -> SoftwareNsm {
        let identity = Identity {
            instance_id: "i-0123456789abcdef0".to_owned(),
            enclave_id: "enc0123456789abcdef".to_owned(),
            measurements: Some(IMAGE),
        };
        SoftwareNsm::new(identity, root).unwrap()
    }

    pub(crate) fn roots(&self) -> Roots {
        Roots::from_pem(self.root_pem.as_bytes()).unwrap()
    }

    /// A document that the workload asked for.
    pub(crate) fn document(&self, nonce: &[u8], public_key: Option<&[u8]>) -> Vec<u8> {
        self.document_for(Purpose::Workload, nonce, public_key)
    }

    /// A document for a challenge that an agent relayed.
    pub(crate) fn relayed(&self, nonce: &[u8], identity: Option<&[u8]>) -> Vec<u8> {
        self.document_for(Purpose::RelayedChallenge, nonce, identity)
    }

    fn document_for(&self, purpose: Purpose, nonce: &[u8], public_key: Option<&[u8]>) -> Vec<u8> {
        let request = Request::Attestation {
            user_data: purpose.user_data().map(Into::into),
            nonce: Some(nonce.to_vec().into()),
            public_key: public_key.map(|key| key.to_vec().into()),
        };
        match self.module.lock().unwrap().answer(request) {
            Response::Attestation { document } => document,
            other => panic!("{other:?}"),
        }
    }
}

/// An answer with a body.
pub(crate) fn ok(body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// What a server does with a request: the nonce in it, and what it sends then.
pub(crate) type Answer = Arc<dyn Fn(&[u8]) -> Vec<u8> + Send + Sync>;

/// How a server sends it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    AtOnce,
    /// A byte every few milliseconds.
    Slow,
    /// What is to be sent, again and again.
    Endless,
    /// Nothing at all.
    Silent,
}

/// Serves HTTP on loopback until the test ends, and gives the port.
pub(crate) async fn serve(answer: Answer, pace: Pace) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(respond(stream, answer.clone(), pace));
        }
    });
    port
}

pub(crate) async fn respond<S>(mut stream: S, answer: Answer, pace: Pace)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => request.push(byte),
            Err(_) => return,
        }
    }
    let request = String::from_utf8(request).unwrap();
    let nonce = request
        .split_once("nonce=")
        .and_then(|(_, rest)| rest.split([' ', '&']).next())
        .and_then(|hex| hex::decode(hex).ok())
        .unwrap();
    let bytes = answer(&nonce);
    // A client that has seen enough closes the connection.
    match pace {
        Pace::AtOnce => {
            let _ = stream.write_all(&bytes).await;
            let _ = stream.shutdown().await;
        }
        Pace::Slow => {
            for byte in bytes {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                if stream.write_u8(byte).await.is_err() {
                    return;
                }
            }
        }
        Pace::Endless => while stream.write_all(&bytes).await.is_ok() {},
        Pace::Silent => std::future::pending().await,
    }
}

/// A key and a certificate for a TLS server.
pub(crate) struct Tls {
    key: KeyPair,
    certificate: rcgen::Certificate,
    /// Who vouches for it, PEM.
    pub(crate) authority_pem: String,
}

impl Tls {
    /// A certificate for 127.0.0.1 and localhost, signed by an authority.
    pub(crate) fn new() -> Self {
        let authority_key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority = params.self_signed(&authority_key).unwrap();
        let issuer = Issuer::new(params, authority_key);
        let key = KeyPair::generate().unwrap();
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let certificate = CertificateParams::new(names)
            .unwrap()
            .signed_by(&key, &issuer)
            .unwrap();
        Self {
            key,
            certificate,
            authority_pem: authority.pem(),
        }
    }

    /// A certificate that only its own key vouches for, of no host.
    pub(crate) fn self_signed() -> Self {
        Self::self_signed_for("nobody.example")
    }

    /// The same of another name.
    pub(crate) fn self_signed_for(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![name.to_owned()])
            .unwrap()
            .self_signed(&key)
            .unwrap();
        Self {
            key,
            authority_pem: certificate.pem(),
            certificate,
        }
    }

    /// The public key as certificates hold it.
    pub(crate) fn spki(&self) -> Vec<u8> {
        use rcgen::PublicKeyData;
        self.key.subject_public_key_info()
    }

    /// Serves HTTPS on loopback until the test ends, and gives the port.
    pub(crate) async fn serve(&self, answer: Answer) -> u16 {
        let key = PrivateKeyDer::try_from(self.key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, answer) = (acceptor.clone(), answer.clone());
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        respond(stream, answer, Pace::AtOnce).await;
                    }
                });
            }
        });
        port
    }
}
