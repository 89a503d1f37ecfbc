//! Who seals: an Ed25519 key (RFC 8032), whose public half an enclave's measured
//! configuration names.

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer};
use thiserror::Error;

/// What precedes the content where it is signed: a signature for anything else is none
/// of a secret.
const SIGNED: &[u8] = b"enclave sealed secret, version 1\0";
/// Bytes of a signature.
pub(crate) const SIGNATURE_BYTES: usize = 64;
/// Bytes of a public key.
const KEY_BYTES: usize = 32;
/// What precedes the key in its `SubjectPublicKeyInfo` (RFC 8410): always the same.
const SPKI_START: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

/// Why bytes are no sender's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SenderError {
    /// No private key.
    #[error(
        "it is not an Ed25519 private key in PEM (`BEGIN PRIVATE KEY`): make one with `openssl genpkey -algorithm ed25519`"
    )]
    Private,
    /// No public key.
    #[error(
        "it is not an Ed25519 public key in PEM (`BEGIN PUBLIC KEY`): `openssl pkey -in sender.key -pubout` prints that of a private key"
    )]
    Public,
}

/// The private key of a sender.
#[derive(Debug)]
pub struct SenderKey(Ed25519KeyPair);

impl SenderKey {
    /// Reads a PKCS#8 key in PEM, as OpenSSL writes it.
    pub fn from_pem(pem: &[u8]) -> Result<Self, SenderError> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem).map_err(|_| SenderError::Private)?;
        // OpenSSL leaves the public key out.
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_pkcs8_der())
            .map(Self)
            .map_err(|_| SenderError::Private)
    }

    /// The public key that verifies what this one signs.
    pub fn sender(&self) -> Sender {
        let mut key = [0; KEY_BYTES];
        key.copy_from_slice(self.0.public_key().as_ref());
        Sender(key)
    }

    pub(crate) fn sign(&self, content: &[u8]) -> Vec<u8> {
        let message = [SIGNED, content].concat();
        self.0.sign(&message).as_ref().to_vec()
    }
}

/// The public key of a sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sender([u8; KEY_BYTES]);

impl Sender {
    /// Reads a `SubjectPublicKeyInfo` in PEM.
    pub fn from_pem(pem: &[u8]) -> Result<Self, SenderError> {
        let der = SubjectPublicKeyInfoDer::from_pem_slice(pem).map_err(|_| SenderError::Public)?;
        Self::from_spki(&der)
    }

    /// Reads a `SubjectPublicKeyInfo` in DER.
    pub fn from_spki(der: &[u8]) -> Result<Self, SenderError> {
        der.strip_prefix(&SPKI_START)
            .and_then(|key| key.try_into().ok())
            .map(Self)
            .ok_or(SenderError::Public)
    }

    /// The key as a `SubjectPublicKeyInfo` in DER.
    pub fn to_spki(&self) -> Vec<u8> {
        [SPKI_START.as_slice(), &self.0].concat()
    }

    /// Whether the sender has signed the content.
    pub(crate) fn has_signed(&self, content: &[u8], signature: &[u8]) -> bool {
        let message = [SIGNED, content].concat();
        UnparsedPublicKey::new(&ED25519, &self.0)
            .verify(&message, signature)
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By OpenSSL.
    const KEY: &[u8] = include_bytes!("../tests/vectors/sender.key");
    const PUBLIC: &[u8] = include_bytes!("../tests/vectors/sender.pem");

    #[test]
    fn sender_keys_of_openssl_are_read() {
        let key = SenderKey::from_pem(KEY).unwrap();
        let sender = Sender::from_pem(PUBLIC).unwrap();
        assert_eq!(key.sender(), sender);
        assert_eq!(Sender::from_spki(&sender.to_spki()), Ok(sender));
        let signature = key.sign(b"content");
        assert!(sender.has_signed(b"content", &signature));
        assert!(!sender.has_signed(b"contents", &signature));
        assert!(!sender.has_signed(b"content", &signature[1..]));
    }

    #[test]
    fn sender_keys_are_never_printed() {
        let printed = format!("{:?}", SenderKey::from_pem(KEY).unwrap());
        let der = PrivatePkcs8KeyDer::from_pem_slice(KEY).unwrap();
        let seed = &der.secret_pkcs8_der()[16..];
        assert!(!printed.contains(&hex::encode(seed)), "{printed}");
        assert!(!printed.contains(&format!("{seed:?}")), "{printed}");
    }

    #[test]
    fn sender_keys_of_other_kinds_are_refused() {
        for bytes in [b"".as_slice(), b"text", PUBLIC, &KEY[..KEY.len() / 2]] {
            assert_eq!(
                SenderKey::from_pem(bytes).unwrap_err(),
                SenderError::Private
            );
        }
        for bytes in [b"".as_slice(), b"text", KEY, &PUBLIC[..PUBLIC.len() / 2]] {
            assert_eq!(Sender::from_pem(bytes), Err(SenderError::Public));
        }
        // A key of X25519 differs by one byte.
        let mut other = Sender::from_pem(PUBLIC).unwrap().to_spki();
        other[8] = 0x6e;
        assert_eq!(Sender::from_spki(&other), Err(SenderError::Public));
    }
}
