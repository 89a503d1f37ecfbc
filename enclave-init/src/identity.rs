//! The workload's identity key: the public key that documents for relayed
//! challenges carry, so that a client can hold a connection against them. The workload has
//! its own and names it, or has the init make one, which signs for it and stays here.

use std::fmt;
use std::sync::{Arc, OnceLock};

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use link::Bytes;
use nsm::MAX_PUBLIC_KEY;
use thiserror::Error;

/// The key, if there is one: once, so that nothing that later makes requests in the
/// workload's name puts another in its place. All clones are one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Identity(Arc<OnceLock<Key>>);

/// A key, and whose it is.
struct Key {
    public: Bytes<MAX_PUBLIC_KEY>,
    /// The private key, if the init has made it: ECDSA on P-384, which whoever verifies
    /// documents has for their signatures. AWS-LC overwrites it when it is freed.
    private: Option<EcdsaKeyPair>,
}

/// Another key has been named before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "the enclave's identity key is another one already, and stays so until the enclave ends: keep the key where a restarted workload finds it"
)]
pub(crate) struct NamedOtherwise;

/// Why the init makes no identity key, or does not sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum IdentityError {
    /// The workload has named a key whose private half it has itself.
    #[error(
        "the workload has registered an identity key of its own, which stays until the enclave ends: sign with that one"
    )]
    Registered,
    /// There is no key to sign with.
    #[error("the init has made no identity key: POST /v1/identity makes one")]
    NotMade,
    /// AWS-LC failed.
    #[error("the random number generator or the memory fails")]
    Failed,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

impl Key {
    fn generate() -> Result<Self, IdentityError> {
        let failed = |_: Unspecified| IdentityError::Failed;
        let pair = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_ASN1_SIGNING).map_err(failed)?;
        let public: PublicKeyX509Der<'_> = pair.public_key().as_der().map_err(failed)?;
        let public = Bytes::new(public.as_ref().to_vec()).ok_or(IdentityError::Failed)?;
        Ok(Self {
            public,
            private: Some(pair),
        })
    }
}

impl Identity {
    /// Names a key of the workload's; the same one may be named again.
    pub(crate) fn name(&self, public: Bytes<MAX_PUBLIC_KEY>) -> Result<(), NamedOtherwise> {
        let private = None;
        match self.0.set(Key { public, private }) {
            Err(key) if self.key() != Some(&*key.public) => Err(NamedOtherwise),
            _ => Ok(()),
        }
    }

    /// Makes the key, unless it was made before, and gives the public one: DER,
    /// `SubjectPublicKeyInfo`.
    pub(crate) fn make(&self) -> Result<&[u8], IdentityError> {
        if self.0.get().is_none() {
            // Somebody else may have been faster.
            let _ = self.0.set(Key::generate()?);
        }
        match self.0.get() {
            Some(key) if key.private.is_some() => Ok(&key.public),
            _ => Err(IdentityError::Registered),
        }
    }

    /// The message's signature by the key that the init has made: ECDSA with SHA-384, DER.
    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, IdentityError> {
        let key = self.0.get().ok_or(IdentityError::NotMade)?;
        let private = key.private.as_ref().ok_or(IdentityError::Registered)?;
        let signature = private.sign(&SystemRandom::new(), message);
        let signature = signature.map_err(|_| IdentityError::Failed)?;
        Ok(signature.as_ref().to_vec())
    }

    /// The key.
    pub(crate) fn key(&self) -> Option<&[u8]> {
        self.0.get().map(|key| &*key.public)
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{ECDSA_P384_SHA384_ASN1, UnparsedPublicKey};

    use super::*;

    fn key(byte: u8) -> Bytes<MAX_PUBLIC_KEY> {
        Bytes::new([byte; 3]).unwrap()
    }

    #[test]
    fn a_key_is_named_once() {
        let identity = Identity::default();
        let clone = identity.clone();
        assert_eq!(identity.key(), None);
        assert_eq!(identity.sign(b"x"), Err(IdentityError::NotMade));
        assert_eq!(identity.name(key(1)), Ok(()));
        assert_eq!(clone.name(key(1)), Ok(()));
        assert_eq!(clone.name(key(2)), Err(NamedOtherwise));
        assert_eq!(identity.key(), Some([1; 3].as_slice()));
        assert_eq!(clone.key(), Some([1; 3].as_slice()));
        assert_eq!(clone.make(), Err(IdentityError::Registered));
        assert_eq!(clone.sign(b"x"), Err(IdentityError::Registered));
    }

    #[test]
    fn a_key_that_the_init_makes_signs_and_stays() {
        let identity = Identity::default();
        let public = identity.make().unwrap().to_vec();
        assert_eq!(identity.clone().make(), Ok(&*public));
        assert_eq!(identity.key(), Some(&*public));
        assert_eq!(identity.name(key(1)), Err(NamedOtherwise));
        let signature = identity.sign(b"message").unwrap();
        let verifier = UnparsedPublicKey::new(&ECDSA_P384_SHA384_ASN1, &public);
        assert!(verifier.verify(b"message", &signature).is_ok());
        assert!(verifier.verify(b"massage", &signature).is_err());
        let other = Identity::default();
        assert_ne!(other.make(), Ok(&*public));
    }
}
