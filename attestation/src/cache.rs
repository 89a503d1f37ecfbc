//! Chains that have been checked, by the hash of their certificates.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::clock::Clock;
use crate::crypto::Crypto;
use crate::validated::{Authority, Leaf};

pub(crate) type Digest = [u8; 32];

/// The digest of each part of a chain that begins at the root, the whole one last: what
/// follows says nothing about what is above it. Each covers the one before it, whose
/// length keeps certificates apart.
pub(crate) fn digests(ders: &[&[u8]], crypto: &dyn Crypto) -> Vec<Digest> {
    let mut above = Digest::default();
    let digest_to = |der: &&[u8]| {
        above = crypto.sha256(&[&above, der]);
        above
    };
    ders.iter().map(digest_to).collect()
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

    /// The leaf, if its whole chain is known and valid by this clock.
    pub(crate) fn leaf(&self, chain: &Digest, clock: Clock) -> Option<Leaf> {
        let leaves = lock(&self.leaves);
        let leaf = leaves.entries.get(chain)?;
        leaf.serves(clock).then(|| leaf.clone())
    }

    /// The lowest authority that is known and serves this chain by this clock,
    /// and its index in the chain, whose parts down to each authority are given.
    pub(crate) fn authority(&self, parts: &[Digest], clock: Clock) -> Option<(usize, Authority)> {
        let authorities = lock(&self.authorities);
        parts.iter().enumerate().rev().find_map(|(index, digest)| {
            let authority = authorities.entries.get(digest)?;
            authority
                .serves(clock, parts.len() - index - 1)
                .then(|| (index, authority.clone()))
        })
    }

    pub(crate) fn keep_leaf(&self, chain: Digest, leaf: &Leaf) {
        lock(&self.leaves).keep(chain, leaf.clone());
    }

    pub(crate) fn keep_authority(&self, part: Digest, authority: &Authority) {
        lock(&self.authorities).keep(part, authority.clone());
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

#[cfg(all(test, feature = "aws-lc-rs"))]
mod tests {
    use super::*;
    use crate::aws_lc::AwsLcRs;

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
        let digests = |ders: &[&[u8]]| digests(ders, &AwsLcRs);
        let chain = digests(&[b"ab", b"c"]);
        assert_ne!(chain.last(), digests(&[b"a", b"bc"]).last());
        assert_ne!(chain.last(), digests(&[b"abc"]).last());
        assert_eq!(chain.first(), digests(&[b"ab"]).last());
    }
}
