//! The secrets that can be sealed to an enclave, and who may seal them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::name::EnclaveName;

/// Most secrets that can be sealed to one enclave.
pub const MAX_SEALED_SECRETS: usize = 16;

/// Why a list of sealed secrets was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SealedSecretsError {
    /// More than are allowed.
    #[error("{0} sealed secrets are more than the {MAX_SEALED_SECRETS} that are allowed")]
    Count(usize),
    /// Two have one name.
    #[error("the sealed secret `{name}` is named twice: give each its own name")]
    Twice {
        /// The second one's place in the list.
        index: usize,
        /// The name.
        name: EnclaveName,
    },
}

/// A sealed secret as a person declares it. In a [`Manifest`](crate::Manifest), the
/// relative path has been joined to the manifest's folder.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealedSecretSource {
    /// What sender and workload call it.
    pub name: EnclaveName,
    /// The PEM file with the sender's public key.
    pub sender: PathBuf,
}

impl SealedSecretSource {
    pub(crate) fn join_to(&mut self, folder: &Path) {
        self.sender = folder.join(&self.sender);
    }
}

/// A sealed secret as it is measured: with the sender's key instead of a file's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealedSecret {
    /// What sender and workload call it.
    pub name: EnclaveName,
    /// The sender's Ed25519 key: a `SubjectPublicKeyInfo` in DER, in base64. Whether it is
    /// one is for whoever verifies with it to find out.
    pub sender: String,
}

/// Checks what concerns more than one secret.
pub(crate) fn check<'n>(
    names: impl ExactSizeIterator<Item = &'n EnclaveName>,
) -> Result<(), SealedSecretsError> {
    if names.len() > MAX_SEALED_SECRETS {
        return Err(SealedSecretsError::Count(names.len()));
    }
    let mut known = BTreeSet::new();
    for (index, name) in names.enumerate() {
        if !known.insert(name) {
            let name = name.clone();
            return Err(SealedSecretsError::Twice { index, name });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealed_secrets_are_few_and_have_names_of_their_own() {
        let name = |text: &str| text.parse::<EnclaveName>().unwrap();
        let many: Vec<_> = (0..=MAX_SEALED_SECRETS)
            .map(|number| name(&format!("n{number}")))
            .collect();
        assert_eq!(check(many[1..].iter()), Ok(()));
        let count = SealedSecretsError::Count(MAX_SEALED_SECRETS + 1);
        assert_eq!(check(many.iter()), Err(count));
        let (index, twice) = (2, name("a"));
        let names = [twice.clone(), name("b"), twice.clone()];
        let error = SealedSecretsError::Twice { index, name: twice };
        assert_eq!(check(names.iter()), Err(error));
    }
}
