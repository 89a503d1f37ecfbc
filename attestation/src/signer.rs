//! The certificate that an image is signed with.

use measurements::Pcr;
use thiserror::Error;
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, X509Certificate};

/// How a certificate is called in PEM (RFC 7468, section 5).
const CERTIFICATE: &str = "CERTIFICATE";

/// Why a text is not the certificate of a signer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "the signer's certificate cannot be read ({0}): give the PEM that the image was signed with"
)]
pub struct SignerError(String);

/// PCR8 of an enclave whose image was signed under the first certificate in this PEM. Like
/// AWS's reader, this one takes no notice of what follows, for instance the issuer's.
pub fn pcr8_of_signer(pem: &[u8]) -> Result<Pcr, SignerError> {
    let unusable = |reason: &dyn ToString| SignerError(reason.to_string());
    for block in Pem::iter_from_buffer(pem) {
        let block = block.map_err(|error| unusable(&error))?;
        if block.label != CERTIFICATE {
            continue;
        }
        let (rest, _) = X509Certificate::from_der(&block.contents)
            .map_err(|_| unusable(&"what its PEM block holds is no certificate"))?;
        if !rest.is_empty() {
            return Err(unusable(&"bytes follow it"));
        }
        return Ok(Pcr::of_signer(&block.contents));
    }
    Err(unusable(&"there is no PEM block CERTIFICATE"))
}
