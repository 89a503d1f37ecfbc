//! One request's events, within every limit of `PutLogEvents`.
//!
//! The limits are those of the API reference
//! (<https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutLogEvents.html>).

use log_spool::Stored;

use super::message;
use crate::telemetry::ratio;

/// Most events of one request.
const MAX_EVENTS: usize = 10_000;
/// Most bytes of one request: of its messages in UTF-8, and the overhead of each.
const MAX_BYTES: usize = 1_048_576;
/// What an event costs beside its message.
const EVENT_OVERHEAD: usize = 26;
/// Events of one request lie within so many milliseconds.
const MAX_SPAN_MS: u64 = 24 * 60 * 60 * 1000;
/// The service refuses events older than this; an hour is kept off the limit of
/// 14 days, for the time until the request arrives.
const MAX_AGE_MS: u64 = (14 * 24 - 1) * 60 * 60 * 1000;
/// The service refuses events further in the future than this; ten minutes are
/// kept off the limit of 2 hours, for clocks that differ.
const MAX_AHEAD_MS: u64 = 110 * 60 * 1000;
/// A clock that goes back so little is not worth a new request: the event gets
/// the time of the one before it.
const MAX_STEP_BACK_MS: u64 = 1000;

/// An event that is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    /// Milliseconds since 1970, UTC.
    pub(super) timestamp: u64,
    pub(super) message: String,
}

/// Events in the order of their records, their times never decreasing.
#[derive(Debug, Default)]
pub(super) struct EventBatch {
    events: Vec<Event>,
    records: u64,
    bytes: usize,
    first_ms: u64,
    last_ms: u64,
}

impl EventBatch {
    /// Takes a record that was stored at `stored_us`, or says that it needs a
    /// batch of its own time, or that this one is full.
    pub(super) fn push(&mut self, record: &Stored<'_>, stored_us: u64, now_us: u64) -> bool {
        let mut time = event_time(record.time_us / 1000, stored_us / 1000, now_us / 1000);
        if !self.events.is_empty() {
            if time + MAX_STEP_BACK_MS < self.last_ms {
                return false;
            }
            time = time.max(self.last_ms);
            if time - self.first_ms > MAX_SPAN_MS || self.events.len() >= MAX_EVENTS {
                return false;
            }
            // No message is shorter than its record: most are told apart here.
            if self.bytes + record.data.len() + EVENT_OVERHEAD > MAX_BYTES {
                return false;
            }
        }
        let messages = message::encode(record.workload, record.data, record.continues);
        let bytes: usize = messages
            .iter()
            .map(|message| message.len() + EVENT_OVERHEAD)
            .sum();
        if !self.events.is_empty()
            && (self.bytes + bytes > MAX_BYTES || self.events.len() + messages.len() > MAX_EVENTS)
        {
            return false;
        }
        let event = |message| Event {
            timestamp: time,
            message,
        };
        self.events.extend(messages.into_iter().map(event));
        if self.records == 0 {
            self.first_ms = time;
        }
        self.last_ms = time;
        self.records += 1;
        self.bytes += bytes;
        true
    }

    pub(super) fn events(&self) -> &[Event] {
        &self.events
    }

    pub(super) fn records(&self) -> u64 {
        self.records
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How close the batch is to the limit that it is closest to.
    pub(super) fn fill(&self) -> f64 {
        let events = ratio(self.events.len() as u64, MAX_EVENTS as u64);
        events.max(ratio(self.bytes as u64, MAX_BYTES as u64))
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// The time of an event, in milliseconds. One that the service would refuse
/// gives way to the time at which the agent stored the record: a line with the
/// wrong time is worth more than none.
fn event_time(time: u64, stored: u64, now: u64) -> u64 {
    let is_taken = time <= now + MAX_AHEAD_MS && time + MAX_AGE_MS >= now;
    if is_taken { time } else { stored }
}

#[cfg(test)]
mod tests {
    use link::logs::LogStream;
    use proptest::prelude::*;

    use super::*;
    use log_spool::Source;

    const NOW_MS: u64 = 1_767_225_600_000;
    const DAY_MS: u64 = 24 * 60 * 60 * 1000;

    fn record(time_ms: u64, data: &[u8]) -> Stored<'_> {
        Stored {
            stream: LogStream::Application,
            sequence: 1,
            time_us: time_ms * 1000,
            source: Source::Stdout,
            continues: false,
            workload: None,
            data,
        }
    }

    fn push(batch: &mut EventBatch, time_ms: u64, data: &[u8]) -> bool {
        batch.push(&record(time_ms, data), NOW_MS * 1000, NOW_MS * 1000)
    }

    fn times(batch: &EventBatch) -> Vec<u64> {
        batch.events().iter().map(|event| event.timestamp).collect()
    }

    #[test]
    fn a_batch_ends_at_the_number_of_events_and_at_their_bytes() {
        let mut batch = EventBatch::default();
        for _ in 0..MAX_EVENTS {
            assert!(push(&mut batch, NOW_MS, b"x"));
        }
        assert!(!push(&mut batch, NOW_MS, b"x"));
        assert!(batch.fill() >= 1.0);
        batch.clear();
        let line = vec![b'x'; 1024 - EVENT_OVERHEAD];
        for _ in 0..1024 {
            assert!(push(&mut batch, NOW_MS, &line));
        }
        assert_eq!(batch.bytes(), MAX_BYTES);
        assert!(!push(&mut batch, NOW_MS, b""));
    }

    #[test]
    fn times_never_decrease_and_a_clock_set_back_begins_a_batch() {
        let mut batch = EventBatch::default();
        assert!(push(&mut batch, NOW_MS, b"a"));
        assert!(push(&mut batch, NOW_MS - 900, b"b"));
        assert!(push(&mut batch, NOW_MS + 5, b"c"));
        assert_eq!(times(&batch), [NOW_MS, NOW_MS, NOW_MS + 5]);
        assert!(!push(&mut batch, NOW_MS - 2000, b"d"));
    }

    #[test]
    fn a_batch_spans_a_day_at_most() {
        let mut batch = EventBatch::default();
        assert!(push(&mut batch, NOW_MS - DAY_MS, b"a"));
        assert!(push(&mut batch, NOW_MS, b"b"));
        assert!(!push(&mut batch, NOW_MS + 1, b"c"));
    }

    #[test]
    fn a_time_that_would_be_refused_is_the_time_of_storing() {
        for wrong in [
            0,
            NOW_MS - 14 * DAY_MS,
            NOW_MS + 2 * 60 * 60 * 1000,
            u64::MAX / 1000,
        ] {
            let mut batch = EventBatch::default();
            assert!(push(&mut batch, wrong, b"a"));
            assert_eq!(times(&batch), [NOW_MS], "{wrong}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn every_limit_holds_whatever_is_logged(
            records in proptest::collection::vec((-20 * 24 * 60..3 * 60_i64, 0..70_000_usize, any::<bool>()), 1..60)
        ) {
            let mut batch = EventBatch::default();
            for (minutes, length, binary) in records {
                let time = NOW_MS.saturating_add_signed(minutes * 60_000);
                let data = vec![if binary { 0xff } else { b'x' }; length.min(link::logs::MAX_RECORD)];
                if !push(&mut batch, time, &data) {
                    prop_assert!(!batch.events().is_empty());
                    batch.clear();
                    prop_assert!(push(&mut batch, time, &data));
                }
                let times = times(&batch);
                prop_assert!(times.is_sorted());
                prop_assert!(times.last().unwrap() - times.first().unwrap() <= MAX_SPAN_MS);
                prop_assert!(times.len() <= MAX_EVENTS);
                let bytes: usize = batch.events().iter().map(|event| event.message.len() + EVENT_OVERHEAD).sum();
                prop_assert!(bytes <= MAX_BYTES);
                prop_assert_eq!(bytes, batch.bytes());
            }
        }
    }
}
