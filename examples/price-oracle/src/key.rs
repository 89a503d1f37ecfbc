//! The enclave's signing key.

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use thiserror::Error;

/// An ECDSA key on P-384, made in this process and kept in its memory alone.
#[derive(Debug)]
pub struct SigningKey {
    pair: EcdsaKeyPair,
    public_key_der: Vec<u8>,
    random: SystemRandom,
}

/// The cryptographic library could not make or use a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the signing key could not be made or used: is there too little memory?")]
pub struct KeyError;

impl SigningKey {
    /// A new key.
    pub fn generate() -> Result<Self, KeyError> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_ASN1_SIGNING).map_err(|_| KeyError)?;
        let der: PublicKeyX509Der<'_> = pair.public_key().as_der().map_err(|_| KeyError)?;
        Ok(Self {
            public_key_der: der.as_ref().to_vec(),
            pair,
            random: SystemRandom::new(),
        })
    }

    /// The public half as DER `SubjectPublicKeyInfo`.
    pub fn public_key_der(&self) -> &[u8] {
        &self.public_key_der
    }

    /// Signs `text`: ECDSA with SHA-384, DER.
    pub fn sign(&self, text: &[u8]) -> Result<Vec<u8>, KeyError> {
        self.pair
            .sign(&self.random, text)
            .map(|signature| signature.as_ref().to_vec())
            .map_err(|_| KeyError)
    }
}
