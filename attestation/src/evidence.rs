//! What a verified document says.

use std::ops::Deref;

use measurements::{PCR_COUNT, Pcr};

use crate::document::{Document, Profile};
use crate::purpose::Purpose;
use crate::roots::PinnedRoot;

/// What a document says whose signature and certificates hold and that satisfies a
/// policy. Whether it did so live is said by what it is taken from: an [`Accepted`]
/// document or an [`Audited`] one.
#[derive(Debug)]
pub struct Evidence<'a> {
    document: Document<'a>,
    root: PinnedRoot,
}

/// A document that satisfied a policy when the verifier was given it: what it says holds
/// now, as far as the policy demands a nonce or a short age. Read it as [`Evidence`].
#[derive(Debug)]
pub struct Accepted<'a>(Evidence<'a>);

/// A document that satisfied a policy at another time than that of the verification. It
/// says nothing about now, and is therefore no [`Accepted`] document. Read it as
/// [`Evidence`].
#[derive(Debug)]
pub struct Audited<'a>(Evidence<'a>);

impl<'a> Evidence<'a> {
    pub(crate) fn new(document: Document<'a>, root: PinnedRoot) -> Self {
        Self { document, root }
    }

    /// The pinned root that its certificates lead to.
    pub fn root(&self) -> &PinnedRoot {
        &self.root
    }

    /// What made the document.
    pub fn profile(&self) -> Profile {
        self.document.profile
    }

    /// The enclave's identity.
    pub fn module_id(&self) -> &'a str {
        self.document.module_id
    }

    /// When the document was made, in milliseconds since 1970.
    pub fn timestamp_ms(&self) -> u64 {
        self.document.timestamp_ms
    }

    /// A register's value, if the document holds it.
    pub fn pcr(&self, index: usize) -> Option<Pcr> {
        self.document.unverified_pcr(index).copied().map(Pcr::new)
    }

    /// The registers that the document holds, in ascending order.
    pub fn pcrs(&self) -> impl Iterator<Item = (usize, Pcr)> + '_ {
        (0..PCR_COUNT).filter_map(|index| Some((index, self.pcr(index)?)))
    }

    /// The nonce.
    pub fn nonce(&self) -> Option<&'a [u8]> {
        self.document.nonce
    }

    /// What the document was made for, if an enclave made it. It holds as far as the
    /// enclave's image is one with `enclave-init`.
    pub fn purpose(&self) -> Option<Purpose> {
        self.document.unverified_purpose()
    }

    /// What the enclave's software put into the document.
    pub fn user_data(&self) -> Option<&'a [u8]> {
        self.document.user_data
    }

    /// The key that the enclave's software bound to the document.
    pub fn public_key(&self) -> Option<&'a [u8]> {
        self.document.public_key
    }
}

impl<'a> Accepted<'a> {
    pub(crate) fn new(evidence: Evidence<'a>) -> Self {
        Self(evidence)
    }
}

impl<'a> Audited<'a> {
    pub(crate) fn new(evidence: Evidence<'a>) -> Self {
        Self(evidence)
    }
}

impl<'a> Deref for Accepted<'a> {
    type Target = Evidence<'a>;

    fn deref(&self) -> &Evidence<'a> {
        &self.0
    }
}

impl<'a> Deref for Audited<'a> {
    type Target = Evidence<'a>;

    fn deref(&self) -> &Evidence<'a> {
        &self.0
    }
}
