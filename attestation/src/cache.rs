//! Chains that have been checked, by the hash of their certificates.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use aws_lc_rs::digest::{Context, SHA256};

use crate::validated::{Authority, Leaf};

pub(crate) type Digest = [u8; 32];

/// The digest of a whole chain, root first.
pub(crate) fn digest_of_chain(ders: &[&[u8]]) -> Digest {
    let mut context = Context::new(&SHA256);
    for der in ders {
        update(&mut context, der);
    }
    finish(context)
}

/// The digest of each part of a chain that begins at the root: what follows
/// says nothing about what is above it.
pub(crate) fn digests_of_parts(ders: &[&[u8]]) -> Vec<Digest> {
    let mut context = Context::new(&SHA256);
    let digest_to = |der: &&[u8]| {
        update(&mut context, der);
        finish(context.clone())
    };
    ders.iter().map(digest_to).collect()
}

/// The length keeps certificates apart.
fn update(context: &mut Context, der: &[u8]) {
    context.update(&der.len().to_be_bytes());
    context.update(der);
}

fn finish(context: Context) -> Digest {
    let mut digest = Digest::default();
    digest.copy_from_slice(context.finish().as_ref());
    digest
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
    pub(crate) fn leaf(&self, chain: &Digest, time_ms: u64) -> Option<Leaf> {
        let leaves = lock(&self.leaves);
        let leaf = leaves.entries.get(chain)?;
        leaf.serves(time_ms).then(|| leaf.clone())
    }

    /// The lowest authority that is known and serves this chain at this time,
    /// and its index in the chain, whose parts down to each authority are given.
    pub(crate) fn authority(&self, parts: &[Digest], time_ms: u64) -> Option<(usize, Authority)> {
        let authorities = lock(&self.authorities);
        parts.iter().enumerate().rev().find_map(|(index, digest)| {
            let authority = authorities.entries.get(digest)?;
            authority
                .serves(time_ms, parts.len() - index - 1)
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
        assert_ne!(
            digest_of_chain(&[b"ab", b"c"]),
            digest_of_chain(&[b"a", b"bc"])
        );
        let parts = digests_of_parts(&[b"ab", b"c"]);
        assert_eq!(
            parts,
            [digest_of_chain(&[b"ab"]), digest_of_chain(&[b"ab", b"c"])]
        );
    }
}
