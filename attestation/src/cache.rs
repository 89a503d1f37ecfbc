//! Chains that have been checked, by the hash of their certificates.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use aws_lc_rs::digest::{Context, SHA256};

use crate::chain::{Authority, Leaf, MAX_CABUNDLE};

type Digest = [u8; 32];

/// The digest of each part of a chain that begins at the root: what follows
/// says nothing about what is above it.
pub(crate) struct Digests {
    digests: [Digest; MAX_CABUNDLE + 1],
    count: usize,
}

impl Digests {
    pub(crate) fn of(ders: &[&[u8]]) -> Self {
        let mut digests = [Digest::default(); MAX_CABUNDLE + 1];
        let mut context = Context::new(&SHA256);
        for (digest, der) in digests.iter_mut().zip(ders) {
            context.update(&der.len().to_be_bytes());
            context.update(der);
            if let Ok(prefix) = context.clone().finish().as_ref().try_into() {
                *digest = prefix;
            }
        }
        Self {
            digests,
            count: ders.len(),
        }
    }

    fn leaf(&self) -> Option<&Digest> {
        self.digests.get(self.count.checked_sub(1)?)
    }

    fn authorities(&self) -> &[Digest] {
        let count = self.count.saturating_sub(1);
        self.digests.get(..count).unwrap_or_default()
    }
}

/// A bounded memory of checked chains under one set of roots. Leaves and
/// authorities are apart: a leaf never stands for an authority.
pub(crate) struct Cache {
    authorities: Mutex<Bounded<Authority>>,
    leaves: Mutex<Bounded<Leaf>>,
}

impl Cache {
    /// A cache of at most this many authorities, and as many leaves.
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            authorities: Mutex::new(Bounded::new(capacity)),
            leaves: Mutex::new(Bounded::new(capacity)),
        }
    }

    /// The leaf, if its whole chain is known and valid at this time.
    pub(crate) fn leaf(&self, digests: &Digests, time_ms: u64) -> Option<Leaf> {
        let leaves = lock(&self.leaves);
        let leaf = leaves.entries.get(digests.leaf()?)?;
        leaf.serves(time_ms).then(|| leaf.clone())
    }

    /// The lowest authority that is known and serves this chain at this time,
    /// and its index.
    pub(crate) fn authority(&self, digests: &Digests, time_ms: u64) -> Option<(usize, Authority)> {
        let authorities = lock(&self.authorities);
        let chain = digests.authorities();
        chain.iter().enumerate().rev().find_map(|(index, digest)| {
            let authority = authorities.entries.get(digest)?;
            authority
                .serves(time_ms, chain.len() - index - 1)
                .then(|| (index, authority.clone()))
        })
    }

    pub(crate) fn keep_leaf(&self, digests: &Digests, leaf: &Leaf) {
        if let Some(digest) = digests.leaf() {
            lock(&self.leaves).keep(*digest, leaf.clone());
        }
    }

    pub(crate) fn keep_authority(&self, digests: &Digests, index: usize, authority: &Authority) {
        if let Some(digest) = digests.authorities().get(index) {
            lock(&self.authorities).keep(*digest, authority.clone());
        }
    }
}

/// A map that forgets its oldest entry when it is full.
struct Bounded<V> {
    entries: HashMap<Digest, V>,
    oldest_first: VecDeque<Digest>,
    capacity: usize,
}

impl<V> Bounded<V> {
    fn new(capacity: usize) -> Self {
        Self {
            entries: HashMap::new(),
            oldest_first: VecDeque::new(),
            capacity,
        }
    }

    fn keep(&mut self, digest: Digest, value: V) {
        if self.entries.insert(digest, value).is_none() {
            self.oldest_first.push_back(digest);
        }
        while self.entries.len() > self.capacity {
            let Some(oldest) = self.oldest_first.pop_front() else {
                return;
            };
            self.entries.remove(&oldest);
        }
    }
}

/// Entries are whole or absent, so a panic elsewhere leaves nothing half-done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_entry_is_forgotten() {
        let mut map = Bounded::new(2);
        for byte in [1, 2, 2, 3] {
            map.keep([byte; 32], byte);
        }
        assert_eq!(map.entries.len(), 2);
        assert_eq!(map.oldest_first.len(), 2);
        assert!(!map.entries.contains_key(&[1; 32]));
    }

    #[test]
    fn a_digest_covers_where_certificates_begin() {
        let digests = |ders: &[&[u8]]| *Digests::of(ders).leaf().unwrap_or(&[0; 32]);
        assert_ne!(digests(&[b"ab", b"c"]), digests(&[b"a", b"bc"]));
        assert_eq!(
            Digests::of(&[b"ab", b"c"]).authorities(),
            Digests::of(&[b"ab", b"d"]).authorities()
        );
    }
}
