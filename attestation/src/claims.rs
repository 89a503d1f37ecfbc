//! What a verified document says, without the document.

use std::collections::BTreeMap;
use std::ops::Deref;

use measurements::Pcr;

use crate::document::Profile;
use crate::evidence::{Accepted, Evidence};
use crate::purpose::Purpose;
use crate::roots::PinnedRoot;

/// [`Evidence`] apart from the document's bytes: it can be kept, sent to another task,
/// and passed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedEvidence {
    root: PinnedRoot,
    profile: Profile,
    module_id: String,
    timestamp_ms: u64,
    pcrs: BTreeMap<usize, Pcr>,
    nonce: Option<Vec<u8>>,
    purpose: Option<Purpose>,
    user_data: Option<Vec<u8>>,
    public_key: Option<Vec<u8>>,
}

/// What an [`Accepted`] document says; only such a document becomes one. Read it as
/// [`OwnedEvidence`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedClaims(OwnedEvidence);

impl From<&Evidence<'_>> for OwnedEvidence {
    fn from(evidence: &Evidence<'_>) -> Self {
        Self {
            root: evidence.root().clone(),
            profile: evidence.profile(),
            module_id: evidence.module_id().to_owned(),
            timestamp_ms: evidence.timestamp_ms(),
            pcrs: evidence.pcrs().collect(),
            nonce: evidence.nonce().map(<[u8]>::to_vec),
            purpose: evidence.purpose(),
            user_data: evidence.user_data().map(<[u8]>::to_vec),
            public_key: evidence.public_key().map(<[u8]>::to_vec),
        }
    }
}

impl From<Accepted<'_>> for VerifiedClaims {
    fn from(accepted: Accepted<'_>) -> Self {
        Self(OwnedEvidence::from(&*accepted))
    }
}

impl Deref for VerifiedClaims {
    type Target = OwnedEvidence;

    fn deref(&self) -> &OwnedEvidence {
        &self.0
    }
}

impl OwnedEvidence {
    /// The pinned root that its certificates lead to.
    pub fn root(&self) -> &PinnedRoot {
        &self.root
    }

    /// What made the document.
    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// The enclave's identity.
    pub fn module_id(&self) -> &str {
        &self.module_id
    }

    /// When the document was made, in milliseconds since 1970.
    pub fn timestamp_ms(&self) -> u64 {
        self.timestamp_ms
    }

    /// A register's value, if the document holds it.
    pub fn pcr(&self, index: usize) -> Option<Pcr> {
        self.pcrs.get(&index).copied()
    }

    /// The registers that the document holds, in ascending order.
    pub fn pcrs(&self) -> impl Iterator<Item = (usize, Pcr)> + '_ {
        self.pcrs.iter().map(|(&index, &pcr)| (index, pcr))
    }

    /// The nonce.
    pub fn nonce(&self) -> Option<&[u8]> {
        self.nonce.as_deref()
    }

    /// What the document was made for, if an enclave made it. It holds as far as the
    /// enclave's image is one with `enclave-init`.
    pub fn purpose(&self) -> Option<Purpose> {
        self.purpose
    }

    /// What the enclave's software put into the document.
    pub fn user_data(&self) -> Option<&[u8]> {
        self.user_data.as_deref()
    }

    /// The key that the enclave's software bound to the document.
    pub fn public_key(&self) -> Option<&[u8]> {
        self.public_key.as_deref()
    }
}
