//! Counting connections and their bytes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

/// Most destinations that are counted one by one.
const MAX_DESTINATIONS: usize = 1024;
/// Where all further destinations are counted.
const OTHERS: &str = "(others)";

/// One port's or destination's counters.
#[derive(Debug, Default)]
pub struct Traffic {
    connections: AtomicU64,
    open: AtomicU64,
    refused: AtomicU64,
    limited: AtomicU64,
    evicted: AtomicU64,
    /// Datagrams that could not be carried.
    pub dropped: AtomicU64,
    /// Bytes out of the enclave.
    pub out: AtomicU64,
    /// Bytes into the enclave.
    pub into: AtomicU64,
}

/// A moment's reading of [`Traffic`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Connections joined since the start.
    pub connections: u64,
    /// Those still open.
    pub open: u64,
    /// Connections that were asked for and not joined.
    pub refused: u64,
    /// Those of them that a limit of connections or of their rate kept out.
    #[serde(default)]
    pub limited: u64,
    /// Idle connections that were closed for new ones.
    #[serde(default)]
    pub evicted: u64,
    /// Datagrams that could not be carried, either way.
    #[serde(default)]
    pub dropped_datagrams: u64,
    /// Bytes out of the enclave.
    pub bytes_out: u64,
    /// Bytes into the enclave.
    pub bytes_in: u64,
}

impl std::iter::Sum for Counts {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            connections: sum.connections.saturating_add(one.connections),
            open: sum.open.saturating_add(one.open),
            refused: sum.refused.saturating_add(one.refused),
            limited: sum.limited.saturating_add(one.limited),
            evicted: sum.evicted.saturating_add(one.evicted),
            dropped_datagrams: sum.dropped_datagrams.saturating_add(one.dropped_datagrams),
            bytes_out: sum.bytes_out.saturating_add(one.bytes_out),
            bytes_in: sum.bytes_in.saturating_add(one.bytes_in),
        })
    }
}

impl Traffic {
    /// Counts a connection as joined, and as open until the guard is dropped.
    pub fn joined(self: &Arc<Self>) -> Open {
        self.connections.fetch_add(1, Ordering::Relaxed);
        self.open.fetch_add(1, Ordering::Relaxed);
        Open(Arc::clone(self))
    }

    /// Counts a connection that was not joined.
    pub fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a connection that a limit kept out.
    pub fn limit(&self) {
        self.refuse();
        self.limited.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an idle connection that was closed for a new one.
    pub fn evict(&self) {
        self.evicted.fetch_add(1, Ordering::Relaxed);
    }

    /// What has been counted.
    pub fn read(&self) -> Counts {
        Counts {
            connections: self.connections.load(Ordering::Relaxed),
            open: self.open.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            limited: self.limited.load(Ordering::Relaxed),
            evicted: self.evicted.load(Ordering::Relaxed),
            dropped_datagrams: self.dropped.load(Ordering::Relaxed),
            bytes_out: self.out.load(Ordering::Relaxed),
            bytes_in: self.into.load(Ordering::Relaxed),
        }
    }
}

/// A connection that is open.
#[derive(Debug)]
pub struct Open(pub Arc<Traffic>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How often the init had no place for a connection in one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaceCounts {
    /// Connections that were refused as busy.
    pub refused: u64,
    /// Idle connections that were closed for new ones.
    pub evicted: u64,
}

impl From<link::control::PlaceCounts> for PlaceCounts {
    fn from(counts: link::control::PlaceCounts) -> Self {
        let link::control::PlaceCounts { refused, evicted } = counts;
        Self { refused, evicted }
    }
}

impl PlaceCounts {
    fn told(&mut self, now: Self) {
        self.refused = self.refused.max(now.refused);
        self.evicted = self.evicted.max(now.evicted);
    }
}

/// How often the init had no place for a connection or a datagram, as it says itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitPlaces {
    /// Out of the enclave.
    pub egress: PlaceCounts,
    /// Into the enclave.
    pub ingress: PlaceCounts,
    /// Datagrams that it dropped.
    #[serde(default)]
    pub dropped_datagrams: u64,
}

impl InitPlaces {
    /// Takes in what the init says now. Counts only grow, whatever it says.
    pub fn told(&mut self, now: Self) {
        self.egress.told(now.egress);
        self.ingress.told(now.ingress);
        self.dropped_datagrams = self.dropped_datagrams.max(now.dropped_datagrams);
    }
}

/// Counters by destination.
#[derive(Debug, Default)]
pub struct Destinations(Mutex<BTreeMap<String, Arc<Traffic>>>);

impl Destinations {
    /// The counters of `destination`.
    pub fn get(&self, destination: &str) -> Arc<Traffic> {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let full = map.len() >= MAX_DESTINATIONS && !map.contains_key(destination);
        let key = if full { OTHERS } else { destination };
        Arc::clone(map.entry(key.to_owned()).or_default())
    }

    /// What has been counted, in the order of the destinations' names.
    pub fn read(&self) -> Vec<(String, Counts)> {
        let map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        map.iter()
            .map(|(destination, traffic)| (destination.clone(), traffic.read()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_connections_are_counted_down() {
        let traffic = Arc::new(Traffic::default());
        let one = traffic.joined();
        let two = traffic.joined();
        drop(one);
        assert_eq!((traffic.read().connections, traffic.read().open), (2, 1));
        drop(two);
        assert_eq!(traffic.read().open, 0);
    }

    #[test]
    fn destinations_are_bounded() {
        let destinations = Destinations::default();
        for number in 0..2 * MAX_DESTINATIONS {
            destinations.get(&format!("host-{number}:443")).refuse();
        }
        let counts = destinations.read();
        assert_eq!(counts.len(), MAX_DESTINATIONS + 1);
        assert_eq!(
            counts.iter().map(|(_, counts)| counts.refused).sum::<u64>(),
            2048
        );
        assert_eq!(
            counts[0],
            (
                OTHERS.to_owned(),
                Counts {
                    refused: 1024,
                    ..Counts::default()
                }
            )
        );
    }
}
