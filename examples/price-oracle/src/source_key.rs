//! The key by which the source of prices knows the service: a secret that the enclave is
//! given, if it has one.

use std::fs;
use std::io;
use std::path::Path;

use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign, verify};

/// The header with the time of a request, in seconds since 1970.
pub const TIME_HEADER: &str = "price-time";
/// The header with the request's signature: HMAC-SHA256 over the time, a space and the path,
/// in hexadecimal.
pub const SIGNATURE_HEADER: &str = "price-signature";

/// A key for HMAC-SHA256.
#[derive(Clone)]
pub struct SourceKey(Key);

impl SourceKey {
    /// The key of these bytes.
    pub fn new(bytes: &[u8]) -> Self {
        Self(Key::new(HMAC_SHA256, bytes))
    }

    /// The key in a file, if there is the file.
    pub fn open(path: &Path) -> io::Result<Option<Self>> {
        match fs::read(path) {
            Ok(bytes) => Ok(Some(Self::new(&bytes))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The signature of a request for this path at this time.
    pub fn sign(&self, path: &str, time: i64) -> String {
        hex::encode(sign(&self.0, message(path, time).as_bytes()))
    }

    /// Whether this is the signature of the request.
    pub fn has_signed(&self, path: &str, time: i64, signature: &str) -> bool {
        let signature = hex::decode(signature);
        signature.is_ok_and(|signature| {
            verify(&self.0, message(path, time).as_bytes(), &signature).is_ok()
        })
    }
}

fn message(path: &str, time: i64) -> String {
    format!("{time} {path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn source_keys_sign_path_and_time() {
        let (key, other) = (SourceKey::new(b"a key"), SourceKey::new(b"another"));
        let signature = key.sign("/v1/BTC-USD", 1_767_225_600);
        assert!(key.has_signed("/v1/BTC-USD", 1_767_225_600, &signature));
        assert!(!key.has_signed("/v1/ETH-USD", 1_767_225_600, &signature));
        assert!(!key.has_signed("/v1/BTC-USD", 1_767_225_601, &signature));
        assert!(!key.has_signed("/v1/BTC-USD", 1_767_225_600, "00"));
        assert!(!other.has_signed("/v1/BTC-USD", 1_767_225_600, &signature));
    }

    #[test]
    fn source_keys_are_optional() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        assert!(SourceKey::open(&file).unwrap().is_none());
        fs::write(&file, "a key").unwrap();
        let signature = SourceKey::new(b"a key").sign("/", 0);
        let read = SourceKey::open(&file).unwrap().unwrap();
        assert!(read.has_signed("/", 0, &signature));
    }
}
