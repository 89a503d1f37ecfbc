//! Symmetric keys, and what is encrypted under them.

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand;

use crate::error::{Kind, Refusal};
use crate::key_id::{ID_BYTES, KeyId};
use crate::wire::Context;

/// The one algorithm that symmetric keys have.
pub(crate) const SYMMETRIC_DEFAULT: &str = "SYMMETRIC_DEFAULT";
/// What a ciphertext begins with.
const FORMAT: u8 = 1;
/// AES-256.
const MATERIAL_BYTES: usize = 32;

/// A key whose ciphertexts name it.
pub(crate) struct SymmetricKey {
    id: KeyId,
    material: RandomizedNonceKey,
}

impl SymmetricKey {
    pub(crate) fn generate(id: KeyId) -> Result<Self, Unspecified> {
        let mut material = [0; MATERIAL_BYTES];
        rand::fill(&mut material)?;
        Ok(Self {
            id,
            material: RandomizedNonceKey::new(&AES_256_GCM, &material)?,
        })
    }

    pub(crate) fn encrypt(&self, plaintext: &[u8], context: &Context) -> Result<Vec<u8>, Refusal> {
        let mut sealed = plaintext.to_vec();
        let nonce = self
            .material
            .seal_in_place_append_tag(Aad::from(self.bound(context)), &mut sealed)
            .map_err(|_| Refusal::bare(Kind::InternalFailure))?;
        Ok([&[FORMAT], self.id.as_bytes(), nonce.as_ref(), &sealed].concat())
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
        bound.extend(self.id.as_bytes());
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
            let (key, rest) = rest.split_first_chunk::<ID_BYTES>()?;
            let (nonce, sealed) = rest.split_first_chunk()?;
            (*format == FORMAT).then_some(Self {
                key: KeyId::from(*key),
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

    fn key() -> SymmetricKey {
        SymmetricKey::generate(KeyId::random().unwrap()).unwrap()
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
}
