//! The enclave's signing key: its identity, for as long as the enclave runs.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use thiserror::Error;

/// An ECDSA key on P-384, made in the enclave and kept in its memory alone.
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

/// The key's file cannot be used.
#[derive(Debug, Error)]
pub enum KeyFileError {
    /// The file cannot be read or written.
    #[error("the key in {} cannot be kept: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// What is in it is no key, or none could be made.
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl SigningKey {
    /// The key in a file, or a new one that is kept there. The enclave's files are in
    /// its memory and end with it; a service that is restarted finds its key again,
    /// which an enclave's identity must be: it is named once.
    pub fn open(path: &Path) -> Result<Self, KeyFileError> {
        let failed = |source| KeyFileError::File {
            path: path.to_owned(),
            source,
        };
        match fs::read(path) {
            Ok(pkcs8) => {
                let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_ASN1_SIGNING, &pkcs8)
                    .map_err(|_| KeyError)?;
                return Ok(Self::new(pair)?);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        let key = Self::generate()?;
        let pkcs8 = key.pair.to_pkcs8v1().map_err(|_| KeyError)?;
        // Whole or not at all: a service that ends meanwhile finds no part of a key.
        let part = path.with_extension("part");
        File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&part)
            .and_then(|mut file| file.write_all(pkcs8.as_ref()))
            .and_then(|()| fs::rename(&part, path))
            .map_err(failed)?;
        Ok(key)
    }

    /// A new key.
    pub fn generate() -> Result<Self, KeyError> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_ASN1_SIGNING).map_err(|_| KeyError)?;
        Self::new(pair)
    }

    fn new(pair: EcdsaKeyPair) -> Result<Self, KeyError> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restarted_service_finds_its_key_again() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("oracle.key");
        let first = SigningKey::open(&file).unwrap();
        let again = SigningKey::open(&file).unwrap();
        assert_eq!(first.public_key_der(), again.public_key_der());
        let files = fs::read_dir(folder.path()).unwrap();
        assert_eq!(files.count(), 1);
    }

    #[test]
    fn a_file_that_holds_no_key_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("oracle.key");
        fs::write(&file, "no key").unwrap();
        assert!(matches!(SigningKey::open(&file), Err(KeyFileError::Key(_))));
        assert_eq!(fs::read(&file).unwrap(), b"no key");
        let nowhere = folder.path().join("none/oracle.key");
        let error = SigningKey::open(&nowhere).unwrap_err().to_string();
        assert!(error.contains("none/oracle.key cannot be kept"), "{error}");
    }
}
