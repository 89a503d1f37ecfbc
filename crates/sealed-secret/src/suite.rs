//! The one suite of HPKE (RFC 9180) that secrets are sealed with.

use rustls::crypto::aws_lc_rs::hpke::DH_KEM_X25519_HKDF_SHA256_AES_256;
use rustls::crypto::hpke::{Hpke, HpkePublicKey};
use thiserror::Error;

/// KEM, KDF and AEAD by their numbers in IANA's registries: DHKEM(X25519, HKDF-SHA256),
/// HKDF-SHA256, AES-256-GCM.
pub const SUITE: [u16; 3] = [0x0020, 0x0001, 0x0002];

/// The same as code.
pub(crate) const HPKE: &dyn Hpke = DH_KEM_X25519_HKDF_SHA256_AES_256;

/// Bytes of a public key of X25519 (RFC 7748), and of what HPKE encapsulates.
pub(crate) const KEY_BYTES: usize = 32;
/// Bytes that AES-GCM appends.
pub(crate) const TAG_BYTES: usize = 16;
/// What precedes the key in its `SubjectPublicKeyInfo` (RFC 8410): always the same.
const SPKI_START: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x6e, 0x03, 0x21, 0x00,
];

/// The system has no random bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the random number generator failed")]
pub struct RandomError;

/// Bytes that are no public key of the suite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("it is not an X25519 key as a DER SubjectPublicKeyInfo of 44 bytes")]
pub struct PublicKeyError;

/// The public half of a sealing key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicKey([u8; KEY_BYTES]);

impl PublicKey {
    /// Reads a `SubjectPublicKeyInfo` in DER, as documents carry it.
    pub fn from_spki(der: &[u8]) -> Result<Self, PublicKeyError> {
        der.strip_prefix(&SPKI_START)
            .and_then(|key| key.try_into().ok())
            .map(Self)
            .ok_or(PublicKeyError)
    }

    /// The key as a `SubjectPublicKeyInfo` in DER.
    pub fn to_spki(&self) -> Vec<u8> {
        [SPKI_START.as_slice(), &self.0].concat()
    }

    pub(crate) const fn new(key: [u8; KEY_BYTES]) -> Self {
        Self(key)
    }

    pub(crate) fn hpke(&self) -> HpkePublicKey {
        HpkePublicKey(self.0.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use hex::decode;
    use rustls::crypto::aws_lc_rs::hpke::DH_KEM_X25519_HKDF_SHA256_AES_128;
    use rustls::crypto::hpke::{EncapsulatedSecret, HpkePrivateKey};

    use super::*;

    #[test]
    fn suite_has_the_numbers_that_are_written() {
        let suite = HPKE.suite();
        let kem: u16 = suite.kem.into();
        let kdf: u16 = suite.sym.kdf_id.into();
        let aead: u16 = suite.sym.aead_id.into();
        assert_eq!([kem, kdf, aead], SUITE);
    }

    /// RFC 9180, appendix A.1.1: the same KEM and KDF. The appendix has no vector of this
    /// suite's AEAD with them; `sealed_by_another_implementation` has one.
    #[test]
    fn suite_opens_the_vectors_of_rfc_9180() {
        let enc = decode("37fda3567bdbd628e88668c3c8d7e97d1d1253b6d4ea6d44c150f741f1bf4431");
        let key = decode("4612c550263fc8ad58375df3f557aac531d26850903e55a9f23f21d8534e8ac8");
        let info = decode("4f6465206f6e2061204772656369616e2055726e").unwrap();
        let plaintext = decode("4265617574792069732074727574682c20747275746820626561757479");
        let key = HpkePrivateKey::from(key.unwrap());
        let mut opener = DH_KEM_X25519_HKDF_SHA256_AES_128
            .setup_opener(&EncapsulatedSecret(enc.unwrap()), &info, &key)
            .unwrap();
        for (aad, ciphertext) in [
            (
                "436f756e742d30",
                "f938558b5d72f1a23810b4be2ab4f84331acc02fc97babc53a52ae8218a355a96d8770ac83d07bea87e13c512a",
            ),
            (
                "436f756e742d31",
                "af2d7e9ac9ae7e270f46ba1f975be53c09f8d875bdc8535458c2494e8a6eab251c03d0c22a56b8ca42c2063b84",
            ),
        ] {
            let (aad, ciphertext) = (decode(aad).unwrap(), decode(ciphertext).unwrap());
            let found = opener.open(&aad, &ciphertext).unwrap();
            assert_eq!(found, *plaintext.as_ref().unwrap());
        }
    }

    #[test]
    fn public_key_is_read_as_it_is_written_and_in_no_other_form() {
        let key = PublicKey::new([9; KEY_BYTES]);
        let der = key.to_spki();
        assert_eq!(PublicKey::from_spki(&der), Ok(key));
        for length in 0..der.len() {
            assert_eq!(PublicKey::from_spki(&der[..length]), Err(PublicKeyError));
        }
        for place in 0..SPKI_START.len() {
            let mut other = der.clone();
            other[place] ^= 1;
            assert_eq!(PublicKey::from_spki(&other), Err(PublicKeyError));
        }
        let longer = [der.as_slice(), &[0]].concat();
        assert_eq!(PublicKey::from_spki(&longer), Err(PublicKeyError));
    }
}
