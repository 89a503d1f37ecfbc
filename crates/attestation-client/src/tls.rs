//! TLS towards a service: who vouches for the server.

use std::sync::Arc;

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

use crate::error::FetchError;

/// Longest reason of TLS, in characters: it may hold whatever names are in a certificate.
const MAX_REASON: usize = 500;

/// Who vouches for a TLS server.
#[derive(Debug, Clone)]
pub struct Trust(Kind);

#[derive(Debug, Clone)]
enum Kind {
    System,
    Authorities(Arc<RootCertStore>),
    AttestedKey,
}

/// Why no certificate authority can be trusted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the certificate authorities cannot be read ({0}): give a PEM file with certificates")]
pub struct TrustError(String);

impl Trust {
    /// The system's certificate authorities.
    pub const fn system() -> Self {
        Self(Kind::System)
    }

    /// The attestation document itself, whose `public_key` must be the
    /// `SubjectPublicKeyInfo` of the server's certificate (DER). The certificate
    /// may be of anybody, also of the server itself, and may have expired.
    pub const fn attested_key() -> Self {
        Self(Kind::AttestedKey)
    }

    /// The certificate authorities in a PEM file, and no others.
    pub fn from_pem(pem: &[u8]) -> Result<Self, TrustError> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|error| TrustError(error.to_string()))?;
            roots
                .add(certificate)
                .map_err(|error| TrustError(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(TrustError("it holds no certificate".to_owned()));
        }
        Ok(Self(Kind::Authorities(Arc::new(roots))))
    }

    async fn config(&self) -> Result<ClientConfig, String> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let roots = match &self.0 {
            Kind::System => system_roots().await?,
            Kind::Authorities(roots) => Arc::clone(roots),
            Kind::AttestedKey => {
                return Ok(builder
                    .dangerous()
                    .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
                    .with_no_client_auth());
            }
        };
        Ok(builder.with_root_certificates(roots).with_no_client_auth())
    }
}

/// The system's certificate authorities: files, so not read on the runtime.
async fn system_roots() -> Result<Arc<RootCertStore>, String> {
    let loaded = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs)
        .await
        .map_err(|error| error.to_string())?;
    let mut roots = RootCertStore::empty();
    // Systems have certificates that nobody can use; that is no reason to stop.
    roots.add_parsable_certificates(loaded.certs);
    if roots.is_empty() {
        return Err(
            "this system has no certificate authorities: install ca-certificates, or name them"
                .to_owned(),
        );
    }
    Ok(Arc::new(roots))
}

/// TLS as one client speaks it, prepared when it is first needed.
#[derive(Debug)]
pub(crate) struct Tls {
    trust: Trust,
    connector: OnceCell<Connector>,
}

struct Connector(TlsConnector);

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connector")
    }
}

impl Tls {
    pub(crate) fn new(trust: Trust) -> Self {
        Self {
            trust,
            connector: OnceCell::new(),
        }
    }

    /// Whether the document has to vouch for the server.
    pub(crate) const fn is_attested(&self) -> bool {
        matches!(self.trust.0, Kind::AttestedKey)
    }

    /// A connection, and the server's `SubjectPublicKeyInfo`, DER.
    pub(crate) async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        host: &str,
        stream: S,
    ) -> Result<(TlsStream<S>, Vec<u8>), FetchError> {
        let failed = |reason: String| FetchError::Tls {
            host: host.to_owned(),
            reason: plain_text::plain_start(&reason, MAX_REASON),
        };
        let prepare = async || {
            let config = self.trust.config().await?;
            Ok(Connector(TlsConnector::from(Arc::new(config))))
        };
        let Connector(connector) = self
            .connector
            .get_or_try_init(prepare)
            .await
            .map_err(failed)?;
        let name =
            ServerName::try_from(host.to_owned()).map_err(|error| failed(error.to_string()))?;
        let stream = connector
            .connect(name, stream)
            .await
            .map_err(|error| failed(error.to_string()))?;
        let (_, connection) = stream.get_ref();
        let certificate = connection
            .peer_certificates()
            .and_then(<[_]>::first)
            .ok_or_else(|| failed("the server has no certificate".to_owned()))?;
        let key = ParsedCertificate::try_from(certificate)
            .map_err(|error| failed(error.to_string()))?
            .subject_public_key_info()
            .to_vec();
        Ok((stream, key))
    }
}

/// Accepts any certificate, and demands that the server holds its key.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
