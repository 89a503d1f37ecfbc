//! Keys, and what is encrypted under them.

use std::time::SystemTime;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand;
use key_policy::{KeyArn, KeyArnError, Policy};
use thiserror::Error;

use crate::error::{Kind, Refusal};
use crate::wire::Context;

/// What a ciphertext begins with.
const FORMAT: u8 = 1;
const ID_BYTES: usize = 16;
/// AES-256.
const MATERIAL_BYTES: usize = 32;

/// Why there is no key.
#[derive(Debug, Error)]
pub enum KeyError {
    /// AWS-LC made none.
    #[error("a key cannot be made: the random number generator fails")]
    Random(#[from] Unspecified),
    /// The key would have no name.
    #[error("the KMS's region cannot be part of a key's ARN: {0}")]
    Region(#[from] KeyArnError),
}

/// A key's identifier, a UUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct KeyId([u8; ID_BYTES]);

impl KeyId {
    fn random() -> Result<Self, Unspecified> {
        let mut bytes = [0; ID_BYTES];
        rand::fill(&mut bytes)?;
        // Version 4, variant 1 (RFC 9562, section 5.4).
        let [.., version, _, variant, _, _, _, _, _, _, _] = &mut bytes;
        *version = *version & 0x0f | 0x40;
        *variant = *variant & 0x3f | 0x80;
        Ok(Self(bytes))
    }
}

impl std::fmt::Display for KeyId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digits = hex::encode(self.0);
        let mut rest = digits.as_str();
        for length in [8, 4, 4, 4] {
            let (group, others) = rest.split_at(length);
            write!(f, "{group}-")?;
            rest = others;
        }
        f.write_str(rest)
    }
}

/// A symmetric key and its policy.
pub(crate) struct Key {
    pub(crate) id: KeyId,
    pub(crate) arn: KeyArn,
    pub(crate) policy: Policy,
    pub(crate) created: SystemTime,
    material: RandomizedNonceKey,
}

impl Key {
    /// A new key, whose ARN begins with `prefix`.
    pub(crate) fn generate(prefix: &str, policy: Policy) -> Result<Self, KeyError> {
        let id = KeyId::random()?;
        let mut material = [0; MATERIAL_BYTES];
        rand::fill(&mut material)?;
        Ok(Self {
            id,
            arn: format!("{prefix}:key/{id}").parse()?,
            policy,
            created: SystemTime::now(),
            material: RandomizedNonceKey::new(&AES_256_GCM, &material)?,
        })
    }

    pub(crate) fn encrypt(&self, plaintext: &[u8], context: &Context) -> Result<Vec<u8>, Refusal> {
        let mut sealed = plaintext.to_vec();
        let nonce = self
            .material
            .seal_in_place_append_tag(Aad::from(self.bound(context)), &mut sealed)
            .map_err(|_| Refusal::bare(Kind::InternalFailure))?;
        Ok([&[FORMAT], &self.id.0[..], nonce.as_ref(), &sealed].concat())
    }

    pub(crate) fn decrypt(
        &self,
        ciphertext: &Ciphertext<'_>,
        context: &Context,
    ) -> Result<Vec<u8>, Refusal> {
        let mut sealed = ciphertext.sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(ciphertext.nonce);
        let plaintext = self
            .material
            .open_in_place(nonce, Aad::from(self.bound(context)), &mut sealed)
            .map_err(|_| Refusal::bare(Kind::InvalidCiphertext))?;
        Ok(plaintext.to_vec())
    }

    /// What is authenticated with a ciphertext.
    fn bound(&self, context: &Context) -> Vec<u8> {
        let mut bound = vec![FORMAT];
        bound.extend(self.id.0);
        for text in context.iter().flat_map(|(name, value)| [name, value]) {
            bound.extend(text.len().to_be_bytes());
            bound.extend(text.as_bytes());
        }
        bound
    }
}

/// A ciphertext whose key is known, and nothing else of it.
pub(crate) struct Ciphertext<'a> {
    pub(crate) key: KeyId,
    nonce: [u8; NONCE_LEN],
    sealed: &'a [u8],
}

impl<'a> Ciphertext<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, Refusal> {
        let parts = || {
            let (format, rest) = bytes.split_first()?;
            let (key, rest) = rest.split_first_chunk()?;
            let (nonce, sealed) = rest.split_first_chunk()?;
            (*format == FORMAT).then_some(Self {
                key: KeyId(*key),
                nonce: *nonce,
                sealed,
            })
        };
        parts().ok_or_else(|| Refusal::bare(Kind::InvalidCiphertext))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        let policy = r#"{"Version": "2012-10-17", "Statement": {"Effect": "Allow",
            "Principal": "*", "Action": "kms:*", "Resource": "*"}}"#;
        let prefix = "arn:aws:kms:eu-west-1:123456789012";
        Key::generate(prefix, policy.parse().unwrap()).unwrap()
    }

    fn context(entries: &[(&str, &str)]) -> Context {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        entries.iter().map(owned).collect()
    }

    #[test]
    fn ciphertexts_are_bound_to_key_and_context() {
        let (key, other) = (key(), key());
        let bound = context(&[("a", "bc"), ("d", "")]);
        let bytes = key.encrypt(b"a secret", &bound).unwrap();
        let ciphertext = Ciphertext::parse(&bytes).unwrap();
        assert_eq!(ciphertext.key, key.id);
        assert_eq!(key.decrypt(&ciphertext, &bound).unwrap(), b"a secret");

        let refused = Err(Refusal::bare(Kind::InvalidCiphertext));
        for wrong in [&[][..], &[("a", "bc")], &[("ab", "c"), ("d", "")]] {
            assert_eq!(key.decrypt(&ciphertext, &context(wrong)), refused);
        }
        assert_eq!(other.decrypt(&ciphertext, &bound), refused);
    }

    #[test]
    fn ciphertexts_that_were_changed_or_cut_are_refused() {
        let key = key();
        let bytes = key.encrypt(b"a secret", &Context::new()).unwrap();
        let open = |bytes: &[u8]| key.decrypt(&Ciphertext::parse(bytes)?, &Context::new());
        for position in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[position] ^= 1;
            let opened = open(&changed);
            // The key's identifier chooses the key, which is known here.
            let in_key = (1..17).contains(&position);
            assert_eq!(opened.is_ok(), in_key, "{position}");
            assert!(open(&bytes[..position]).is_err());
        }
    }

    #[test]
    fn identifiers_are_uuids_of_version_4() {
        let id = KeyId([0xff; ID_BYTES]).to_string();
        assert_eq!(id, "ffffffff-ffff-ffff-ffff-ffffffffffff");
        let id = KeyId::random().unwrap().to_string();
        assert_eq!(id.as_bytes()[14], b'4');
        assert!(b"89ab".contains(&id.as_bytes()[19]));
    }
}
