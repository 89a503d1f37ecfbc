//! The workload's identity key: the public key that documents for relayed
//! challenges carry, so that a client can hold a connection against them.

use std::sync::{Arc, OnceLock};

use link::Bytes;
use nsm::MAX_PUBLIC_KEY;
use thiserror::Error;

/// The key, if the workload has named one: once, so that nothing that later makes
/// requests in the workload's name puts another in its place. All clones are one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Identity(Arc<OnceLock<Bytes<MAX_PUBLIC_KEY>>>);

/// Another key has been named before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "the enclave's identity key is another one already, and stays so until the enclave ends: keep the key where a restarted workload finds it"
)]
pub(crate) struct NamedOtherwise;

impl Identity {
    /// Names the key; the same one may be named again.
    pub(crate) fn name(&self, key: Bytes<MAX_PUBLIC_KEY>) -> Result<(), NamedOtherwise> {
        match self.0.set(key) {
            Err(key) if self.0.get() != Some(&key) => Err(NamedOtherwise),
            _ => Ok(()),
        }
    }

    /// The key.
    pub(crate) fn key(&self) -> Option<&[u8]> {
        self.0.get().map(|key| &**key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> Bytes<MAX_PUBLIC_KEY> {
        Bytes::new([byte; 3]).unwrap()
    }

    #[test]
    fn a_key_is_named_once() {
        let identity = Identity::default();
        let clone = identity.clone();
        assert_eq!(identity.key(), None);
        assert_eq!(identity.name(key(1)), Ok(()));
        assert_eq!(clone.name(key(1)), Ok(()));
        assert_eq!(clone.name(key(2)), Err(NamedOtherwise));
        assert_eq!(identity.key(), Some([1; 3].as_slice()));
        assert_eq!(clone.key(), Some([1; 3].as_slice()));
    }
}
