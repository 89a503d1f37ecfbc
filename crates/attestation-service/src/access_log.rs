//! The log of requests, of which no client can write as much as it likes.

use std::collections::BTreeMap;
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::interval;
use tracing::info;

use crate::clients::Client;

/// How often the requests without a line of their own are summed up.
const SUMMARY_INTERVAL: Duration = Duration::from_secs(10);
/// Clients, with a status each, that are told apart in that time.
const MAX_KINDS: usize = 1024;

/// Requests whose number no rate limit bounds: refused ones, and probes. Of these each
/// client has a line for each status in an interval, and then a count.
#[derive(Default)]
pub(crate) struct AccessLog(Mutex<Unlimited>);

/// What an interval has had.
#[derive(Debug, Default, PartialEq, Eq)]
struct Unlimited {
    /// Requests after the first.
    more: BTreeMap<(Client, u16), u64>,
    /// Requests of clients for which there was no room in the table.
    others: u64,
}

impl AccessLog {
    /// Whether a request beyond the rate limit gets a line; one that does not is counted.
    pub(crate) fn has_line(&self, client: Client, status: u16) -> bool {
        let mut unlimited = self.lock();
        if let Some(more) = unlimited.more.get_mut(&(client, status)) {
            *more += 1;
            return false;
        }
        if unlimited.more.len() >= MAX_KINDS {
            unlimited.others += 1;
            return false;
        }
        unlimited.more.insert((client, status), 0);
        true
    }

    /// Sums up from time to time, until it is dropped.
    pub(crate) async fn summarise_often(&self) {
        let mut ticks = interval(SUMMARY_INTERVAL);
        loop {
            ticks.tick().await;
            self.summarise();
        }
    }

    /// Says how many requests had no line, and begins an interval.
    pub(crate) fn summarise(&self) {
        let Unlimited { more, others } = mem::take(&mut *self.lock());
        for ((client, status), count) in more {
            if count > 0 {
                info!(%client, status, count, "more requests");
            }
        }
        if others > 0 {
            info!(count = others, "more requests of other clients");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Unlimited> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn client(number: u32) -> Client {
        Client::of(Ipv4Addr::from_bits(number).into())
    }

    #[test]
    fn a_client_has_one_line_for_each_status_in_an_interval() {
        let log = AccessLog::default();
        let lines = |status| {
            let requests = (0..20_000).filter(|_| log.has_line(client(1), status));
            requests.count()
        };
        assert_eq!((lines(429), lines(503)), (1, 1));
        assert!(log.has_line(client(2), 429));
        let counts: Vec<_> = log.lock().more.values().copied().collect();
        assert_eq!(counts, [19_999, 19_999, 0]);
        log.summarise();
        assert_eq!(*log.lock(), Unlimited::default());
        assert_eq!(lines(429), 1);
    }

    #[test]
    fn clients_without_number_have_a_bounded_number_of_lines() {
        let log = AccessLog::default();
        let lines = (0..50_000).filter(|number| log.has_line(client(*number), 429));
        assert_eq!(lines.count(), MAX_KINDS);
        assert_eq!(log.lock().others, 50_000 - MAX_KINDS as u64);
        assert_eq!(log.lock().more.len(), MAX_KINDS);
    }
}
