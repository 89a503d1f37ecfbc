//! The certificates of the services that the init calls.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

pub(crate) const HOST: &str = "kms.example.test";
/// Where the init finds Systems Manager.
pub(crate) const SSM_HOST: &str = "ssm.eu-west-1.amazonaws.com";
pub(crate) const S3_HOST: &str = "s3.eu-west-1.amazonaws.com";

/// An authority, and a certificate of its for the services.
pub(crate) struct Tls {
    pub(crate) authority_pem: String,
    pub(crate) acceptor: TlsAcceptor,
}

impl Tls {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority_pem = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new([HOST, SSM_HOST, S3_HOST].map(str::to_owned))
            .unwrap()
            .signed_by(&key, &issuer)
            .unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        Self {
            authority_pem,
            acceptor: TlsAcceptor::from(Arc::new(config)),
        }
    }
}
