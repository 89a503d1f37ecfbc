//! What is known of the sinks themselves: how far behind, how full the batches,
//! what failed and what was lost.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use link::control::Losses;
use link::logs::LogStream;
use log_spool::{Boot, Cursor, Progress, Spool, SpoolStatus, now_us};

use serde::{Deserialize, Serialize};

use super::{Delivered, SendError};
use crate::losses::{self, Counts, EnclaveLosses, LostRecords};

/// Everything about an enclave's logs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LogsStatus {
    /// Records taken from the enclave.
    pub records: u64,
    /// Numbers that it left out.
    pub missing: u64,
    /// Records that were lost in the enclave, by stream and reason, as it tells.
    #[serde(default)]
    pub lost: Counts,
    /// Whether the enclave has told of all that it lost, as it does at its end.
    #[serde(default)]
    pub complete: bool,
    /// The spool.
    pub spool: SpoolStatus,
    /// The sinks, one entry for each stream that a sink sends on its own.
    pub sinks: Vec<SinkStatus>,
}

/// What is known of the spool and its sinks, now and later.
#[derive(Debug)]
pub struct Telemetry {
    pub(super) spool: Arc<Spool>,
    pub(super) sinks: Vec<Arc<SinkMetrics>>,
    enclave: Mutex<EnclaveLosses>,
    /// Numbers that the enclave left out when it had another agent.
    missing_before: AtomicU64,
}

impl LogsStatus {
    /// Records that were lost in the enclave: what it tells, or at least the numbers
    /// that it has left out.
    pub fn lost_in_enclave(&self) -> u64 {
        losses::total(&self.lost).max(self.missing)
    }

    /// What was lost.
    pub fn lost_records(&self) -> LostRecords {
        let mut sinks = Counts::new();
        for sink in self.sinks.iter().filter(|sink| !sink.lost.is_empty()) {
            let name = match &sink.stream {
                Some(stream) => format!("{} {stream}", sink.sink),
                None => sink.sink.clone(),
            };
            sinks.insert(name, sink.lost.clone());
        }
        LostRecords {
            in_enclave: self.lost_in_enclave(),
            enclave: self.lost.clone(),
            complete: self.complete,
            sinks,
            own: self.spool.own_dropped,
        }
    }
}

impl Telemetry {
    pub(super) fn new(spool: Arc<Spool>, sinks: Vec<Arc<SinkMetrics>>) -> Self {
        Self {
            spool,
            sinks,
            enclave: Mutex::default(),
            missing_before: AtomicU64::new(0),
        }
    }

    /// Goes on where the enclave's earlier agent ended: with the records that the
    /// enclave had lost by its own account, and the numbers that it had left out.
    pub fn go_on(&self, lost: &Counts, missing: u64) {
        self.enclave().go_on(lost);
        self.missing_before.store(missing, Ordering::Relaxed);
    }

    /// The enclave tells what it has lost.
    pub fn lost(&self, losses: &Losses) {
        self.enclave().told(losses);
    }

    /// The enclave tells so for the last time, in order or as far as it can.
    pub fn ended(&self, losses: &Losses, numbered: &[(LogStream, u64)], in_order: bool) {
        self.enclave().ended(losses, numbered, in_order);
    }

    /// Corrects the last count by what the spool, which is closed, does hold.
    pub fn settle(&self, boot: Option<Boot>) {
        let held = boot.map_or_else(Vec::new, |boot| self.spool.held(boot));
        self.enclave().settle(&held);
    }

    fn enclave(&self) -> MutexGuard<'_, EnclaveLosses> {
        self.enclave.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was lost in the enclave: what it tells, and the numbers that it left out.
    pub fn lost_in_enclave(&self) -> (Counts, u64) {
        let before = self.missing_before.load(Ordering::Relaxed);
        let (_, missing) = self.spool.counts();
        (self.enclave().read(), before.saturating_add(missing))
    }

    /// A moment's reading.
    pub fn read(&self) -> LogsStatus {
        let (records, _) = self.spool.counts();
        let (lost, missing) = self.lost_in_enclave();
        let progress = *self.spool.progress().borrow();
        LogsStatus {
            records,
            missing,
            lost,
            complete: self.enclave().is_complete(),
            spool: self.spool.status(),
            sinks: self.sinks.iter().map(|sink| sink.read(progress)).collect(),
        }
    }
}

/// One sink, or one stream of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SinkStatus {
    /// Its destination, as `--sink` names it.
    pub sink: String,
    /// The stream, if it sends each on its own.
    pub stream: Option<String>,
    /// Records of the spool behind what it has passed on.
    pub lag_records: u64,
    /// Bytes of the spool behind what it has passed on.
    pub lag_bytes: u64,
    /// How long the oldest record that it has not passed on is in the spool.
    pub lag_seconds: f64,
    /// Records that the destination has taken.
    pub records: u64,
    /// Their bytes, as the destination counts them.
    pub bytes: u64,
    /// Batches that it has taken.
    pub batches: u64,
    /// How full the last batch was, from 0 to 1.
    pub last_fill: f64,
    /// How full batches are on average.
    pub mean_fill: f64,
    /// Sends that were tried again.
    pub retries: u64,
    /// Failures by class.
    pub errors: BTreeMap<String, u64>,
    /// The last failure since a batch was taken.
    pub last_error: Option<String>,
    /// Records that did not reach it, by reason.
    pub lost: BTreeMap<String, u64>,
}

/// Counts that one forwarder keeps.
#[derive(Debug)]
pub(crate) struct SinkMetrics {
    sink: String,
    stream: Option<&'static str>,
    offset: AtomicU64,
    record: AtomicU64,
    /// When the oldest record that waits was stored; zero if none does.
    oldest_us: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    records: u64,
    bytes: u64,
    batches: u64,
    last_fill: f64,
    fills: f64,
    retries: u64,
    errors: BTreeMap<&'static str, u64>,
    last_error: Option<String>,
    lost: BTreeMap<&'static str, u64>,
}

impl SinkMetrics {
    pub(crate) fn new(sink: String, stream: Option<&'static str>) -> Self {
        Self {
            sink,
            stream,
            offset: AtomicU64::new(0),
            record: AtomicU64::new(0),
            oldest_us: AtomicU64::new(0),
            state: Mutex::default(),
        }
    }

    pub(crate) fn passed(&self, cursor: Cursor) {
        self.offset.store(cursor.offset, Ordering::Relaxed);
        self.record.store(cursor.record, Ordering::Relaxed);
    }

    pub(crate) fn waits_since(&self, stored_us: Option<u64>) {
        self.oldest_us
            .store(stored_us.unwrap_or(0), Ordering::Relaxed);
    }

    pub(crate) fn delivered(&self, delivered: &Delivered, fill: f64) {
        let mut state = self.state();
        state.records += delivered.records;
        state.bytes += delivered.bytes;
        state.batches += 1;
        state.last_fill = fill;
        state.fills += fill;
        state.last_error = None;
        for &(reason, count) in &delivered.refused {
            *state.lost.entry(reason).or_default() += count;
        }
    }

    pub(crate) fn failed(&self, error: &SendError) {
        let mut state = self.state();
        state.retries += 1;
        *state.errors.entry(error.class.name()).or_default() += 1;
        state.last_error = Some(error.message.clone());
    }

    pub(crate) fn lost(&self, reason: &'static str, count: u64) {
        if count > 0 {
            *self.state().lost.entry(reason).or_default() += count;
        }
    }

    pub(crate) fn read(&self, progress: Progress) -> SinkStatus {
        let owned = |counts: &BTreeMap<&'static str, u64>| {
            counts
                .iter()
                .map(|(&name, &count)| (name.to_owned(), count))
                .collect()
        };
        let lag_us = match self.oldest_us.load(Ordering::Relaxed) {
            0 => 0,
            oldest => now_us().saturating_sub(oldest),
        };
        let state = self.state();
        SinkStatus {
            sink: self.sink.clone(),
            stream: self.stream.map(str::to_owned),
            lag_records: progress
                .record
                .saturating_sub(self.record.load(Ordering::Relaxed)),
            lag_bytes: progress
                .offset
                .saturating_sub(self.offset.load(Ordering::Relaxed)),
            lag_seconds: rounded(ratio(lag_us, 1_000_000)),
            records: state.records,
            bytes: state.bytes,
            batches: state.batches,
            last_fill: rounded(state.last_fill),
            mean_fill: match state.batches {
                0 => 0.0,
                batches => rounded(state.fills / ratio(batches, 1)),
            },
            retries: state.retries,
            errors: owned(&state.errors),
            last_error: state.last_error.clone(),
            lost: owned(&state.lost),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A quotient for people and dashboards.
#[expect(clippy::cast_precision_loss, reason = "three decimals are shown")]
pub fn ratio(dividend: u64, divisor: u64) -> f64 {
    dividend as f64 / divisor as f64
}

/// To three decimals.
fn rounded(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}
