//! Places for connections: so many in all, so many for each peer, and given up by
//! those that do nothing when others need them.
//!
//! A connection may be idle for as long as it likes while there is room. When there is
//! none, the one that has been idle longest gives its place up, of those of the peer
//! that has most; a connection that was idle for less than [`MIN_IDLE`], or [`MIN_MUTE`]
//! where nothing has gone over it at all, never does. Places can have another limit for both.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::control::PlaceCounts;

/// How long a connection must have been idle before it can lose its place.
pub const MIN_IDLE: Duration = Duration::from_secs(60);
/// The same for one that nothing has gone over yet.
pub const MIN_MUTE: Duration = Duration::from_secs(10);

/// The places of one kind of connection, taken by peers that `K` tells apart.
#[derive(Debug)]
pub struct Places<K> {
    total: usize,
    share: usize,
    idle: Duration,
    mute: Duration,
    start: Instant,
    table: Mutex<Table<K>>,
    refused: AtomicU64,
    evicted: AtomicU64,
}

#[derive(Debug)]
struct Table<K> {
    last: u64,
    taken: HashMap<u64, (K, Arc<Activity>)>,
    of_peer: HashMap<K, usize>,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// All are taken, by connections in use.
    Total(usize),
    /// The peer has its share of them, all in use.
    Share(usize),
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Total(total) => write!(f, "all {total} connections are in use"),
            Self::Share(share) => write!(
                f,
                "all {share} connections that one peer may have are in use"
            ),
        }
    }
}

/// What a connection does, as far as its place depends on it.
#[derive(Debug)]
pub struct Activity {
    start: Instant,
    /// Milliseconds from `start` to the last bytes.
    last: AtomicU64,
    is_mute: AtomicBool,
    evicted: Notify,
}

/// A place that is taken, until it is dropped.
#[derive(Debug)]
pub struct Place<K: Eq + Hash> {
    places: Arc<Places<K>>,
    peer: K,
    number: u64,
    activity: Arc<Activity>,
}

impl<K: Clone + Eq + Hash> Places<K> {
    /// So many places, of which one peer gets no more than three quarters.
    pub fn shared(total: usize) -> Arc<Self> {
        Self::new(total, total - total / 4)
    }

    /// So many places, of which one peer gets no more than its share.
    pub fn new(total: usize, share: usize) -> Arc<Self> {
        Self::with_limits(total, share, MIN_IDLE, MIN_MUTE)
    }

    /// So many places, of which one peer gets no more than three quarters. One that has been
    /// idle for so long can be lost, whatever has gone over the connection.
    pub fn shared_for(total: usize, idle: Duration) -> Arc<Self> {
        Self::with_limits(total, total - total / 4, idle, idle)
    }

    fn with_limits(total: usize, share: usize, idle: Duration, mute: Duration) -> Arc<Self> {
        Arc::new(Self {
            total,
            share,
            idle,
            mute,
            start: Instant::now(),
            table: Mutex::new(Table {
                last: 0,
                taken: HashMap::new(),
                of_peer: HashMap::new(),
            }),
            refused: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
        })
    }

    /// A place for a connection of `peer`.
    pub fn take(self: &Arc<Self>, peer: K) -> Result<Place<K>, Full> {
        let mut table = self.table();
        let own = table.of_peer.get(&peer).copied().unwrap_or_default();
        let idle = |activity: &Activity| activity.idle_if_long(self.idle, self.mute);
        let full = if own >= self.share {
            Some((
                Full::Share(self.share),
                table.idlest(idle, |other| *other == peer),
            ))
        } else if table.taken.len() >= self.total {
            Some((Full::Total(self.total), table.idlest(idle, |_| true)))
        } else {
            None
        };
        match full {
            Some((_, Some(idlest))) => {
                if let Some(activity) = table.free(idlest) {
                    activity.evicted.notify_one();
                }
                self.evicted.fetch_add(1, Ordering::Relaxed);
            }
            Some((full, None)) => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                return Err(full);
            }
            None => {}
        }
        let activity = Arc::new(Activity {
            start: self.start,
            last: AtomicU64::new(since(self.start)),
            is_mute: AtomicBool::new(true),
            evicted: Notify::new(),
        });
        table.last += 1;
        let number = table.last;
        *table.of_peer.entry(peer.clone()).or_default() += 1;
        table
            .taken
            .insert(number, (peer.clone(), Arc::clone(&activity)));
        Ok(Place {
            places: Arc::clone(self),
            peer,
            number,
            activity,
        })
    }
}

impl<K: Eq + Hash> Places<K> {
    /// How many there are.
    pub fn total(&self) -> usize {
        self.total
    }

    /// How often places were wanted and not there.
    pub fn counts(&self) -> PlaceCounts {
        PlaceCounts {
            refused: self.refused.load(Ordering::Relaxed),
            evicted: self.evicted.load(Ordering::Relaxed),
        }
    }

    /// Counts a connection that was refused for want of something else.
    pub fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a connection that was closed for want of something else.
    pub fn evict(&self) {
        self.evicted.fetch_add(1, Ordering::Relaxed);
    }

    /// How many are taken.
    pub fn taken(&self) -> usize {
        self.table().taken.len()
    }

    fn table(&self) -> MutexGuard<'_, Table<K>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash> Table<K> {
    /// The connection that gives its place up, if one has to among these peers.
    fn idlest(
        &self,
        idle: impl Fn(&Activity) -> Option<u64>,
        may: impl Fn(&K) -> bool,
    ) -> Option<u64> {
        let idle = self.taken.iter().filter_map(|(number, (peer, activity))| {
            let idle = idle(activity)?;
            let of_peer = self.of_peer.get(peer).copied().unwrap_or_default();
            may(peer).then_some((of_peer, idle, Reverse(*number)))
        });
        idle.max().map(|(_, _, Reverse(number))| number)
    }

    fn free(&mut self, number: u64) -> Option<Arc<Activity>> {
        let (peer, activity) = self.taken.remove(&number)?;
        if let Some(count) = self.of_peer.get_mut(&peer) {
            *count -= 1;
            if *count == 0 {
                self.of_peer.remove(&peer);
            }
        }
        Some(activity)
    }
}

impl Activity {
    /// Notes that the connection is there now, after it had its place for a while.
    pub fn begin(&self) {
        self.last.store(since(self.start), Ordering::Relaxed);
    }

    /// Notes that bytes have gone over the connection.
    pub fn touch(&self) {
        self.last.store(since(self.start), Ordering::Relaxed);
        self.is_mute.store(false, Ordering::Relaxed);
    }

    /// Waits until the connection has lost its place. Cancellation safe.
    pub async fn evicted(&self) {
        self.evicted.notified().await;
    }

    /// Milliseconds since the last bytes, if the place can be lost after so many.
    fn idle_if_long(&self, least: Duration, mute: Duration) -> Option<u64> {
        let idle = since(self.start).saturating_sub(self.last.load(Ordering::Relaxed));
        let least = if self.is_mute.load(Ordering::Relaxed) {
            mute
        } else {
            least
        };
        (u128::from(idle) >= least.as_millis()).then_some(idle)
    }
}

fn since(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX)
}

impl<K: Eq + Hash> Place<K> {
    /// Whose it is.
    pub fn peer(&self) -> &K {
        &self.peer
    }

    /// What the connection's bytes are noted with.
    pub fn activity(&self) -> &Activity {
        &self.activity
    }
}

impl<K: Eq + Hash> Drop for Place<K> {
    fn drop(&mut self) {
        self.places.table().free(self.number);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{advance, timeout};

    use super::*;

    async fn is_evicted(place: &Place<&str>) -> bool {
        timeout(Duration::ZERO, place.activity().evicted())
            .await
            .is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn one_peer_gets_its_share_and_the_others_the_rest() {
        let places = Places::new(4, 3);
        let held: Vec<_> = (0..3).map(|_| places.take("a").unwrap()).collect();
        assert_eq!(places.take("a").unwrap_err(), Full::Share(3));
        let other = places.take("b").unwrap();
        assert_eq!(places.take("c").unwrap_err(), Full::Total(4));
        drop(other);
        let other = places.take("c").unwrap();
        assert_eq!(places.counts().refused, 2);
        drop((held, other));
        assert!(places.table().of_peer.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_keeps_its_place_while_there_is_room() {
        let places = Places::new(2, 2);
        let idle = places.take("a").unwrap();
        assert_eq!(places.taken(), 1);
        advance(Duration::from_secs(24 * 3600)).await;
        let _other = places.take("b").unwrap();
        assert!(timeout(MIN_IDLE, idle.activity().evicted()).await.is_err());
        assert_eq!(places.counts(), PlaceCounts::default());
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_idle_one_of_the_greediest_peer_gives_its_place_up() {
        let places = Places::new(4, 4);
        let modest = places.take("modest").unwrap();
        let first = places.take("greedy").unwrap();
        advance(Duration::from_secs(1)).await;
        let second = places.take("greedy").unwrap();
        let third = places.take("greedy").unwrap();
        for place in [&modest, &first, &second, &third] {
            place.activity().touch();
        }
        advance(MIN_IDLE / 2).await;
        first.activity().touch();
        advance(MIN_IDLE / 2).await;
        assert!(places.take("new").is_ok());
        let mut lost = Vec::new();
        for place in [&modest, &first, &second, &third] {
            lost.push(is_evicted(place).await);
        }
        assert_eq!(lost[..2], [false, false]);
        assert_ne!(lost[2], lost[3], "one of the two");
        assert_eq!(places.counts().evicted, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_never_said_anything_loses_its_place_sooner() {
        let places = Places::new(2, 2);
        let spoke = places.take("a").unwrap();
        spoke.activity().touch();
        let mute = places.take("a").unwrap();
        mute.activity().begin();
        assert_eq!(places.take("b").unwrap_err(), Full::Total(2));
        advance(MIN_MUTE).await;
        let _new = places.take("b").unwrap();
        assert!(is_evicted(&mute).await);
        assert_eq!(places.take("c").unwrap_err(), Full::Total(2));
        // Its end, which comes later, frees nothing twice.
        drop(mute);
        assert_eq!(places.take("c").unwrap_err(), Full::Total(2));
    }

    #[tokio::test(start_paused = true)]
    async fn places_of_another_kind_have_a_limit_of_their_own() {
        let idle = Duration::from_secs(5);
        let places = Places::shared_for(4, idle);
        let held: Vec<_> = (0..3).map(|_| places.take("a").unwrap()).collect();
        held[0].activity().touch();
        advance(idle / 2).await;
        assert_eq!(places.take("a").unwrap_err(), Full::Share(3));
        held[0].activity().touch();
        advance(idle / 2).await;
        let _new = places.take("a").unwrap();
        assert!(!is_evicted(&held[0]).await);
        assert!(is_evicted(&held[1]).await != is_evicted(&held[2]).await);
    }
}
