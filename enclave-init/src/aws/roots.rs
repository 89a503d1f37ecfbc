//! Which certificates a service's must lead to.

use std::sync::Arc;

use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::error::InitError;

/// Amazon's own roots (<https://www.amazontrust.com/repository/>), under which AWS's
/// endpoints are outside China. The list that browsers have names well over a hundred
/// authorities, each of which could make a certificate for KMS; this one names the
/// authority that does.
const AMAZON: &str = include_str!("amazon-roots.pem");
/// HTTP/1.1, the only protocol that is spoken.
const PROTOCOL: &[u8] = b"http/1.1";

/// How TLS is spoken to services under the roots in this PEM, or under Amazon's.
pub(super) fn tls(roots: Option<&str>) -> Result<Arc<ClientConfig>, InitError> {
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| InitError::Kms(error.to_string()))?
        .with_root_certificates(store(roots.unwrap_or(AMAZON))?);
    let mut config = config.with_no_client_auth();
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    Ok(Arc::new(config))
}

fn store(pem: &str) -> Result<RootCertStore, InitError> {
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|error| unusable(&error))?;
        store.add(certificate).map_err(|error| unusable(&error))?;
    }
    if store.is_empty() {
        return Err(unusable(&"they are no certificates in PEM"));
    }
    Ok(store)
}

fn unusable(reason: &dyn ToString) -> InitError {
    InitError::Kms(format!("its roots are unusable: {}", reason.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aws_roots_are_amazons() {
        let expected = [
            "8ecde6884f3d87b1125ba31ac3fcb13d7016de7f57cc904fe1cb97c6ae98196e",
            "1ba5b2aa8c65401a82960118f80bec4f62304d83cec4713a19c39c011ea46db4",
            "18ce6cfe7bf14e60b2e347b8dfe868cb31d02ebb3ada271569f50343b46db3a4",
            "e35d28419ed02025cfa69038cd623962458da5c695fbdea3c22b0bfb25897092",
            "568d6905a2c88708a4b3025190edcfedb1974a606a13c6e5290fcb2ae63edab5",
        ];
        let found = CertificateDer::pem_slice_iter(AMAZON.as_bytes());
        let found = found.map(|certificate| super::super::digest(&certificate.unwrap()));
        assert!(found.eq(expected));
        assert_eq!(store(AMAZON).unwrap().len(), expected.len());
    }

    #[test]
    fn aws_roots_that_are_none_are_refused() {
        let cut = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for pem in ["", "x", cut] {
            let error = tls(Some(pem)).unwrap_err().to_string();
            assert!(error.contains("its roots are unusable"), "{error}");
        }
    }
}
