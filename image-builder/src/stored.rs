//! A container image as it is stored: its parts, and how they are read.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use attestation::pcr8_of_signer;
use measurements::Pcr;
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::error::ImageError;
use crate::node::Content;
use crate::spool::Range;

/// Largest JSON document of an image, in bytes.
const MAX_JSON: u64 = 4 * 1024 * 1024;
/// Largest file with a signer's certificate, in bytes.
const MAX_CERTIFICATE: usize = 64 * 1024;

/// Opens a regular file: opening a pipe would wait for somebody to write.
pub(crate) fn open(path: &Path) -> Result<File, ImageError> {
    open_regular(path).map_err(|source| ImageError::Read {
        path: Some(path.to_owned()),
        source,
    })
}

/// See [`open`].
pub(crate) fn open_regular(path: &Path) -> io::Result<File> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is not a file",
        ));
    }
    File::open(path)
}

/// Reads the beginning of a file, and goes back to it.
pub(crate) fn read_head(file: &mut File, limit: u64) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    Read::by_ref(file).take(limit).read_to_end(&mut head)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(head)
}

/// Reads a file that the manifest names, of at most this many bytes.
pub(crate) fn read_small(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    let limit = limit as u64;
    let mut bytes = Vec::new();
    open_regular(path)?
        .take(limit + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::other(format!(
            "it has more than {limit} bytes: is this the right file?"
        )));
    }
    Ok(bytes)
}

/// Why a signer's certificate cannot be had from a file.
#[derive(Debug, Error)]
pub(crate) enum SignerError {
    #[error("it cannot be read: {0}")]
    Read(io::Error),
    #[error(transparent)]
    Certificate(#[from] attestation::SignerError),
}

/// PCR8 of images that are signed under the first certificate in a file.
pub(crate) fn read_signer(path: &Path) -> Result<Pcr, SignerError> {
    let pem = read_small(path, MAX_CERTIFICATE).map_err(SignerError::Read)?;
    Ok(pcr8_of_signer(&pem)?)
}

/// What is wrong with a file that the manifest names.
pub(crate) fn about(path: &Path, reason: &impl ToString) -> String {
    format!("{}: {}", path.display(), reason.to_string())
}

/// Reads a JSON document of the image.
pub(crate) fn read_document(
    file: &File,
    range: Content,
    what: &str,
) -> Result<Vec<u8>, ImageError> {
    if range.size > MAX_JSON {
        return Err(ImageError::Invalid(format!(
            "{what} has {} bytes, more than the {MAX_JSON} that are read",
            range.size
        )));
    }
    let mut bytes = Vec::new();
    Range::new(file, range)
        .read_to_end(&mut bytes)
        .map_err(ImageError::read)?;
    Ok(bytes)
}

pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T, ImageError> {
    serde_json::from_slice(bytes)
        .map_err(|error| ImageError::Invalid(format!("{what} cannot be read: {error}")))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P384_SHA384};

    use super::*;

    #[test]
    fn signer_is_not_read_from_a_file_that_is_too_large() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("signer.pem");
        let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
        let certificate = CertificateParams::default().self_signed(&key).unwrap();
        let mut pem = certificate.pem().into_bytes();
        pem.resize(MAX_CERTIFICATE, b'\n');
        std::fs::write(&path, &pem).unwrap();
        let signer = Pcr::of_signer(certificate.der());
        assert_eq!(read_signer(&path).unwrap(), signer);
        pem.push(b'\n');
        std::fs::write(&path, &pem).unwrap();
        let error = read_signer(&path).unwrap_err().to_string();
        assert!(error.contains("is this the right file?"), "{error}");
    }
}
