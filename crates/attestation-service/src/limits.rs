//! How much a client may ask, and how much is done at once.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::clients::Client;

/// Largest body of a request, in bytes: the largest document in base64 has
/// 22 KiB, and the rest is for a policy.
pub const MAX_BODY: usize = 64 * 1024;

/// Largest body that is read to its end, in bytes, though it is refused.
pub(crate) const MAX_DROPPED: usize = 1024 * 1024;
/// Largest head of a request, in bytes.
pub(crate) const MAX_HEAD: usize = 16 * 1024;
/// How long a client may take to send a request's head, idle time included.
pub(crate) const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a client may take to send a request's body.
pub(crate) const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may take to read an answer that the kernel's buffer cannot hold.
pub(crate) const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// The kernel's buffer for answers of a connection, in bytes: some twenty of the
/// usual size. It may take twice as much (socket(7), `SO_SNDBUF`).
pub(crate) const SEND_BUFFER: u32 = 128 * 1024;
/// Connections that wait to be accepted.
pub(crate) const BACKLOG: u32 = 1024;
/// How long a connection is used: after it, the next answer closes it.
pub(crate) const CONNECTION_AGE: Duration = Duration::from_secs(10 * 60);
/// How long a connection that is too old may take to end.
pub(crate) const CLOSE_TIMEOUT: Duration = Duration::from_secs(30);
/// Clients that are told apart. More of them share: the table never grows, and
/// nobody can push another out of it.
const SLOTS: usize = 1 << 16;
/// Requests that a client may make at once after a pause, in seconds' worth.
const BURST_SECONDS: u64 = 2;

/// A rate limit for each client address: a token bucket, kept as the time at
/// which the bucket will be full again (the generic cell rate algorithm).
pub(crate) struct RateLimiter {
    /// Nanoseconds between requests; none without a limit.
    interval: Option<u64>,
    /// Nanoseconds after `start` at which each bucket is full.
    full_at: Vec<AtomicU64>,
    hasher: RandomState,
    start: Instant,
}

impl RateLimiter {
    /// So many requests per second and client; 0 is no limit.
    pub(crate) fn new(per_second: u32) -> Self {
        let interval = 1_000_000_000_u64.checked_div(per_second.into());
        let slots = if interval.is_some() { SLOTS } else { 0 };
        Self {
            interval,
            full_at: (0..slots).map(|_| AtomicU64::new(0)).collect(),
            hasher: RandomState::new(),
            start: Instant::now(),
        }
    }

    /// Takes a token, or says how long to wait for one.
    pub(crate) fn take(&self, client: Client) -> Result<(), Duration> {
        self.take_at(client, self.start.elapsed())
    }

    fn take_at(&self, client: Client, elapsed: Duration) -> Result<(), Duration> {
        let Some(interval) = self.interval else {
            return Ok(());
        };
        let hash = self.hasher.hash_one(client);
        // Whatever of the hash is cut off, the index is below the table's size.
        #[expect(clippy::cast_possible_truncation, reason = "an index from a hash")]
        let Some(full_at) = self.full_at.get(hash as usize % SLOTS) else {
            return Ok(());
        };
        let now = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        let burst = BURST_SECONDS * 1_000_000_000;
        let taken = full_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at| {
            let next = full_at.max(now) + interval;
            (next <= now + burst.max(interval)).then_some(next)
        });
        taken.map(|_| ()).map_err(|full_at| {
            let wait = (full_at.max(now) + interval).saturating_sub(now + burst.max(interval));
            Duration::from_nanos(wait)
        })
    }
}

/// How many requests of each client are open, behind a proxy that has few connections
/// for many clients.
pub(crate) struct OpenRequests {
    limit: u32,
    /// Clients that share a place share its limit.
    open: Vec<AtomicU32>,
    hasher: RandomState,
}

/// An open request, until it is dropped.
pub(crate) struct OpenRequest<'a>(&'a AtomicU32);

impl OpenRequests {
    /// So many of each client at once.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit: u32::try_from(limit).unwrap_or(u32::MAX),
            open: (0..SLOTS).map(|_| AtomicU32::new(0)).collect(),
            hasher: RandomState::new(),
        }
    }

    /// Opens a request; none if the client has as many as it may.
    pub(crate) fn enter(&self, client: Client) -> Option<OpenRequest<'_>> {
        #[expect(clippy::cast_possible_truncation, reason = "an index from a hash")]
        let index = self.hasher.hash_one(client) as usize % SLOTS;
        let open = self.open.get(index)?;
        open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |number| {
            (number < self.limit).then_some(number.saturating_add(1))
        })
        .ok()?;
        Some(OpenRequest(open))
    }
}

impl Drop for OpenRequest<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::from_secs(100);

    fn ip(text: &str) -> Client {
        Client::of(text.parse().unwrap())
    }

    #[test]
    fn a_burst_is_allowed_and_then_the_rate() {
        let limiter = RateLimiter::new(10);
        let client = ip("192.0.2.1");
        for number in 0..20 {
            assert!(limiter.take_at(client, START).is_ok(), "{number}");
        }
        let wait = limiter.take_at(client, START).unwrap_err();
        assert_eq!(wait, Duration::from_millis(100));
        assert!(limiter.take_at(client, START + wait).is_ok());
        assert!(limiter.take_at(client, START + wait).is_err());
    }

    #[test]
    fn clients_are_apart_and_an_ipv6_network_is_one() {
        let limiter = RateLimiter::new(1);
        let exhaust = |client: &str| while limiter.take_at(ip(client), START).is_ok() {};
        exhaust("2001:db8:0:1::1");
        assert!(limiter.take_at(ip("2001:db8:0:1:ffff::2"), START).is_err());
        // One of many: two may share a place in the table, but not all.
        let others = (2..10).filter(|net| {
            let other = ip(&format!("2001:db8:0:{net}::1"));
            limiter.take_at(other, START).is_ok()
        });
        assert!(others.count() >= 7);
        exhaust("192.0.2.1");
        assert!(limiter.take_at(ip("::ffff:192.0.2.1"), START).is_err());
    }

    #[test]
    fn open_requests_are_counted_for_each_client_and_given_back() {
        let requests = OpenRequests::new(2);
        let held: Vec<_> = (0..2).map(|_| requests.enter(ip("192.0.2.1"))).collect();
        assert!(held.iter().all(Option::is_some));
        assert!(requests.enter(ip("192.0.2.1")).is_none());
        // One of many: two may share a place in the table, but not all.
        let others =
            (2..10).filter(|other| requests.enter(ip(&format!("192.0.2.{other}"))).is_some());
        assert!(others.count() >= 7);
        drop(held);
        assert!(requests.enter(ip("192.0.2.1")).is_some());
    }

    #[test]
    fn no_limit_is_no_limit() {
        let limiter = RateLimiter::new(0);
        assert!((0..100_000).all(|_| limiter.take_at(ip("192.0.2.1"), START).is_ok()));
    }

    #[test]
    fn a_rate_above_one_per_nanosecond_is_no_division_by_zero() {
        let limiter = RateLimiter::new(u32::MAX);
        assert!(limiter.take_at(ip("192.0.2.1"), START).is_ok());
    }
}
