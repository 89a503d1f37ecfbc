//! The connections that are open, and which of them makes room for a new one.
//!
//! A new connection is always taken: one that waits in the kernel's queue would wait
//! for whoever keeps the places, the probe that asks whether the service lives as well.
//! Room is made by closing another, of which the service waits for the client, and has
//! waited the longest: for a head or the rest of one, for a body, or for an answer to be
//! read. Of a client that has its share it is one of its own; where all places are
//! taken, one of the client that has the most. Where the service works for all of them,
//! a few more are taken, to answer probes.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

use crate::clients::Client;

/// A place's time while the service works, and does not wait for the client.
const WORKING: u64 = u64::MAX;

/// Connections that are taken where none can make room.
const RESERVE: usize = 16;

/// The open connections.
pub(crate) struct Crowd {
    /// At once.
    limit: usize,
    /// Of one client; none where the peers are proxies, that stand for many.
    share: Option<usize>,
    start: Instant,
    places: Mutex<Places>,
}

#[derive(Default)]
struct Places {
    total: usize,
    of_clients: HashMap<Client, Vec<Arc<Place>>>,
}

/// What is known of one connection.
pub(crate) struct Place {
    client: Client,
    /// Whether it is beyond the limit, and for probes.
    reserve: bool,
    start: Instant,
    /// Since when the service waits for the client, in microseconds since `start`.
    since: AtomicU64,
    evicted: AtomicBool,
    eviction: Notify,
}

/// Why a connection was closed for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Eviction {
    /// Its client had its share.
    Share,
    /// All places were taken.
    Limit,
}

/// A connection's place, given back when it is dropped.
pub(crate) struct Held {
    crowd: Arc<Crowd>,
    place: Arc<Place>,
}

impl Crowd {
    pub(crate) fn new(limit: usize, share: Option<usize>) -> Arc<Self> {
        Arc::new(Self {
            limit,
            share,
            start: Instant::now(),
            places: Mutex::default(),
        })
    }

    /// A place for a new connection, and what was done for it. None if not even the
    /// reserve has one.
    pub(crate) fn enter(self: &Arc<Self>, client: Client) -> Option<(Held, Option<Eviction>)> {
        let mut places = self.places();
        let own = places.of_clients.get(&client).map_or(0, Vec::len);
        let (room, eviction) = if self.share.is_some_and(|share| own >= share) {
            (places.evict_of(client), Some(Eviction::Share))
        } else if places.total >= self.limit {
            (places.evict(), Some(Eviction::Limit))
        } else {
            (Some(()), None)
        };
        let reserve = room.is_none();
        if reserve && places.total >= self.limit.saturating_add(RESERVE) {
            return None;
        }
        let place = Arc::new(Place {
            client,
            reserve,
            start: self.start,
            since: AtomicU64::new(0),
            evicted: AtomicBool::new(false),
            eviction: Notify::new(),
        });
        place.waits();
        places.total += 1;
        places
            .of_clients
            .entry(client)
            .or_default()
            .push(place.clone());
        let crowd = self.clone();
        Some((Held { crowd, place }, eviction.filter(|_| !reserve)))
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Places {
    fn evict_of(&mut self, client: Client) -> Option<()> {
        let (_, place) = longest(self.of_clients.get(&client)?)?;
        self.close(&place);
        Some(())
    }

    /// Of those who have the most, the one that has waited the longest.
    fn evict(&mut self) -> Option<()> {
        let candidates = self.of_clients.values().filter_map(|places| {
            let (since, place) = longest(places)?;
            Some((places.len(), std::cmp::Reverse(since), place))
        });
        let (_, _, place) = candidates.max_by_key(|(number, since, _)| (*number, *since))?;
        self.close(&place);
        Some(())
    }

    fn close(&mut self, place: &Arc<Place>) {
        place.evicted.store(true, Ordering::Relaxed);
        place.eviction.notify_one();
        self.remove(place);
    }

    fn remove(&mut self, place: &Arc<Place>) {
        let Some(places) = self.of_clients.get_mut(&place.client) else {
            return;
        };
        let before = places.len();
        places.retain(|other| !Arc::ptr_eq(other, place));
        self.total -= before - places.len();
        if places.is_empty() {
            self.of_clients.remove(&place.client);
        }
    }
}

/// The place that has waited the longest, and since when. Clients say more meanwhile, which
/// changes the time, so it is not looked up again.
fn longest(places: &[Arc<Place>]) -> Option<(u64, Arc<Place>)> {
    let waiting = places
        .iter()
        .filter_map(|place| Some((waiting(place)?, place)));
    let (since, place) = waiting.min_by_key(|(since, _)| *since)?;
    Some((since, place.clone()))
}

/// Since when the service waits for the client, if it does.
fn waiting(place: &Arc<Place>) -> Option<u64> {
    let since = place.since.load(Ordering::Relaxed);
    (since != WORKING).then_some(since)
}

impl Place {
    /// The service waits for the client from now on.
    pub(crate) fn waits(&self) {
        let now = u64::try_from(self.start.elapsed().as_micros()).unwrap_or(WORKING - 1);
        self.since.store(now, Ordering::Relaxed);
    }

    /// The service has what it needs, and works.
    pub(crate) fn works(&self) {
        self.since.store(WORKING, Ordering::Relaxed);
    }

    /// Whether only probes are answered here.
    pub(crate) fn is_reserve(&self) -> bool {
        self.reserve
    }

    /// Done when the connection has to make room.
    pub(crate) async fn eviction(&self) {
        self.eviction.notified().await;
    }

    /// Whether the connection has had to make room.
    pub(crate) fn is_evicted(&self) -> bool {
        self.evicted.load(Ordering::Relaxed)
    }
}

impl Held {
    pub(crate) fn place(&self) -> &Arc<Place> {
        &self.place
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.crowd.places().remove(&self.place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(last: u8) -> Client {
        Client::of([192, 0, 2, last].into())
    }

    fn enter(crowd: &Arc<Crowd>, last: u8, since: u64) -> (Held, Option<Eviction>) {
        let (held, eviction) = crowd.enter(client(last)).unwrap();
        held.place.since.store(since, Ordering::Relaxed);
        (held, eviction)
    }

    fn evicted(held: &[Held]) -> Vec<usize> {
        let indices = held.iter().enumerate();
        indices
            .filter(|(_, held)| held.place.is_evicted())
            .map(|(index, _)| index)
            .collect()
    }

    #[test]
    fn a_client_with_its_share_makes_room_for_itself() {
        let crowd = Crowd::new(10, Some(2));
        let mut held = vec![enter(&crowd, 1, 5).0, enter(&crowd, 1, 3).0];
        held.push(enter(&crowd, 2, 1).0);
        let (new, eviction) = enter(&crowd, 1, 9);
        held.push(new);
        assert_eq!(eviction, Some(Eviction::Share));
        assert_eq!(evicted(&held), [1]);
        assert_eq!(crowd.places().total, 3);
    }

    #[test]
    fn a_full_crowd_makes_room_at_the_cost_of_who_has_the_most() {
        let crowd = Crowd::new(4, Some(4));
        let mut held = vec![
            enter(&crowd, 1, 1).0,
            enter(&crowd, 2, 7).0,
            enter(&crowd, 2, 6).0,
            enter(&crowd, 3, 2).0,
        ];
        let (new, eviction) = enter(&crowd, 4, 9);
        assert_eq!(eviction, Some(Eviction::Limit));
        assert_eq!(evicted(&held), [2]);
        held.push(new);
        // Everybody has one: the longest wait ends.
        held.push(enter(&crowd, 5, 9).0);
        assert_eq!(evicted(&held), [0, 2]);
        assert_eq!(crowd.places().total, 4);
    }

    #[test]
    fn whom_the_service_works_for_stays_and_the_reserve_is_for_probes() {
        let crowd = Crowd::new(2, Some(2));
        let mut held = vec![enter(&crowd, 1, WORKING).0, enter(&crowd, 2, WORKING).0];
        for _ in 0..RESERVE {
            let (probe, eviction) = enter(&crowd, 3, WORKING);
            assert!(probe.place.is_reserve());
            assert_eq!(eviction, None);
            held.push(probe);
        }
        assert!(crowd.enter(client(4)).is_none());
        assert!(evicted(&held).is_empty());
        held[0].place.waits();
        let (next, eviction) = enter(&crowd, 4, 1);
        assert_eq!(
            (next.place.is_reserve(), eviction),
            (false, Some(Eviction::Limit))
        );
        assert_eq!(evicted(&held), [0]);
    }

    #[test]
    fn room_is_made_though_clients_say_more_meanwhile() {
        let crowd = Crowd::new(10, Some(1));
        let (mut held, _) = enter(&crowd, 1, 0);
        let talking = Mutex::new(Some(held.place.clone()));
        let talk = || {
            while let Some(place) = &*talking.lock().unwrap() {
                place.waits();
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(talk);
            for _ in 0..60_000 {
                let (next, eviction) = crowd.enter(client(1)).unwrap();
                if next.place.is_reserve() || eviction != Some(Eviction::Share) {
                    *talking.lock().unwrap() = None;
                    panic!("nothing made room");
                }
                *talking.lock().unwrap() = Some(next.place.clone());
                held = next;
            }
            *talking.lock().unwrap() = None;
        });
        assert!(!held.place.is_evicted());
    }

    #[test]
    fn places_are_given_back_once() {
        let crowd = Crowd::new(2, Some(1));
        let first = enter(&crowd, 1, 1).0;
        let second = enter(&crowd, 1, 2).0;
        assert!(first.place.is_evicted());
        drop(first);
        assert_eq!(crowd.places().total, 1);
        drop(second);
        let places = crowd.places();
        assert_eq!((places.total, places.of_clients.len()), (0, 0));
    }

    #[test]
    fn proxies_have_no_share() {
        let crowd = Crowd::new(3, None);
        let held: Vec<_> = (1..=3).map(|since| enter(&crowd, 1, since).0).collect();
        assert!(evicted(&held).is_empty());
        assert_eq!(enter(&crowd, 1, 9).1, Some(Eviction::Limit));
        assert_eq!(evicted(&held), [0]);
    }
}
