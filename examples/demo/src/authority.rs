//! A certificate authority for servers on this machine.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::private_file;

/// The file with the certificate of an authority that is kept.
const CERTIFICATE: &str = "authority.pem";
const KEY: &str = "authority-key.pem";

/// A certificate authority.
pub struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// A new one of this name.
    pub fn new(name: &str) -> anyhow::Result<Self> {
        Self::generate(name).map(|(authority, _)| authority)
    }

    /// The one in the folder, or a new one of this name that is kept there.
    pub fn open(folder: &Path, name: &str) -> anyhow::Result<Self> {
        let (certificate, key) = (folder.join(CERTIFICATE), folder.join(KEY));
        if let (Some(pem), Some(key)) = (read(&certificate)?, read(&key)?) {
            let key = KeyPair::from_pem(&key);
            let issuer = key.and_then(|key| Issuer::from_ca_cert_pem(&pem, key));
            let issuer = issuer.with_context(|| {
                format!(
                    "the authority in {} cannot be used; without {CERTIFICATE} a new one is made, which images do not know",
                    folder.display()
                )
            })?;
            return Ok(Self { pem, issuer });
        }
        let (authority, key_pem) = Self::generate(name)?;
        // The certificate comes last: with it, both are there.
        private_file::write(&key, &key_pem)?;
        private_file::write(&certificate, &authority.pem)?;
        Ok(authority)
    }

    fn generate(name: &str) -> anyhow::Result<(Self, String)> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.distinguished_name.push(DnType::CommonName, name);
        let pem = params.self_signed(&key)?.pem();
        let key_pem = key.serialize_pem();
        let issuer = Issuer::new(params, key);
        Ok((Self { pem, issuer }, key_pem))
    }

    /// Its certificate, PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Accepts TLS connections for these names, with a new key.
    pub fn acceptor(&self, names: &[&str]) -> anyhow::Result<TlsAcceptor> {
        let key = KeyPair::generate()?;
        let names: Vec<_> = names.iter().copied().map(str::to_owned).collect();
        let certificate = CertificateParams::new(names)?.signed_by(&key, &self.issuer)?;
        let private = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], private)?;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

/// Opens TLS connections to servers that an authority vouches for, by its certificate (PEM).
pub fn connector(authority: &str) -> anyhow::Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.as_bytes())?)?;
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

fn read(path: &Path) -> anyhow::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}
