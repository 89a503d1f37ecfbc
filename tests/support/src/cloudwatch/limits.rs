//! The limits of `PutLogEvents`
//! (<https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutLogEvents.html>).

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::ensure;

use super::service::Event;

/// Most events of one call.
const MAX_EVENTS: usize = 10_000;
/// Most bytes of one call: every event counts its message and 26 more.
const MAX_BATCH_BYTES: usize = 1_048_576;
/// Most bytes of one event, counted in the same way.
const MAX_EVENT_BYTES: usize = 262_144;
const OVERHEAD: usize = 26;
const HOUR_MS: i64 = 60 * 60 * 1000;
/// Most time between the first and the last event of one call.
const MAX_SPAN_MS: i64 = 24 * HOUR_MS;
/// How old an event may be.
const MAX_AGE_MS: i64 = 14 * 24 * HOUR_MS;
/// How far ahead of the service's clock an event may be.
const MAX_LEAD_MS: i64 = 2 * HOUR_MS;

/// Holds the events of one call against every limit.
pub(super) fn check(events: &[Event]) -> anyhow::Result<()> {
    ensure!(
        (1..=MAX_EVENTS).contains(&events.len()),
        "{} events in one call",
        events.len()
    );
    let bytes = bytes(events);
    ensure!(bytes <= MAX_BATCH_BYTES, "{bytes} bytes in one call");
    for event in events {
        ensure!(!event.message.is_empty(), "an event without a message");
        let bytes = event.message.len() + OVERHEAD;
        ensure!(bytes <= MAX_EVENT_BYTES, "an event of {bytes} bytes");
    }
    ensure!(
        events.is_sorted_by_key(|event| event.timestamp),
        "events are not in the order of their times"
    );
    let first = events.first().map_or(0, |event| event.timestamp);
    let last = events.last().map_or(0, |event| event.timestamp);
    ensure!(
        last - first <= MAX_SPAN_MS,
        "{} ms between events of one call",
        last - first
    );
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
    let now = i64::try_from(now)?;
    ensure!(
        first >= now - MAX_AGE_MS,
        "an event is {} ms old",
        now - first
    );
    ensure!(
        last <= now + MAX_LEAD_MS,
        "an event is {} ms ahead",
        last - now
    );
    Ok(())
}

/// How full a call is, in thousandths of the limit of events or of bytes, whichever
/// is nearer.
pub(super) fn fill(events: &[Event]) -> usize {
    (events.len() * 1000 / MAX_EVENTS).max(bytes(events) * 1000 / MAX_BATCH_BYTES)
}

fn bytes(events: &[Event]) -> usize {
    let sizes = events.iter().map(|event| event.message.len() + OVERHEAD);
    sizes.sum()
}
