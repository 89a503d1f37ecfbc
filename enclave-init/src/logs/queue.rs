//! Records that the parent does not hold yet: numbered per stream, bounded in
//! memory.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use link::control::{Loss, LossReason, Losses};
use link::logs::{LogStream, MAX_BATCH_RECORDS, Record, Source};
use manifest::{LogBuffer, WhenFull, WorkloadName};
use tokio::time::Instant;

use super::lines::Piece;

/// How long the parent may take nothing before records are dropped for new ones,
/// where the manifest allows that.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);
/// What the init's own records may take beyond the buffer, in bytes, so that they
/// do not push the workload's out while those wait for room.
const MAX_OWN: usize = 256 * 1024;
/// What a record costs beyond its text, in bytes: its place in the queue, which
/// grows by doubling, and its share of the allocation that its text is in.
const RECORD_OVERHEAD: usize = 128;
/// Text of one batch, in bytes; with the records' fields it stays below a frame's limit.
const MAX_BATCH: usize = 256 * 1024;

/// Records that make a batch worth its cost.
const FEW: usize = 1024;

const STREAMS: usize = LogStream::ALL.len();
const REASONS: usize = LossReason::ALL.len();

#[derive(Debug)]
pub(super) struct Queue {
    when_full: WhenFull,
    /// Memory that records may take, in bytes.
    limit: usize,
    records: VecDeque<Queued>,
    bytes: usize,
    /// How many records at the front the current connection has carried.
    sent: usize,
    /// The last number given, for each stream.
    numbered: [u64; STREAMS],
    /// The last number that any connection has carried, for each stream.
    carried: [u64; STREAMS],
    /// Since when the parent has taken nothing, while there was something.
    waiting_since: Instant,
    dropped: [Dropped; STREAMS],
    /// Records that were lost since the start, by stream and reason.
    lost: [[u64; REASONS]; STREAMS],
    /// The agent will take nothing more: what is here, and what comes, is lost.
    is_abandoned: bool,
}

/// Records of one stream that gave way and have not been reported.
#[derive(Debug, Clone, Copy, Default)]
struct Dropped {
    count: u64,
    first: u64,
    last: u64,
}

/// Where a record comes from.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    pub(super) source: Source,
    /// Whose it is, where there are several workloads.
    pub(super) workload: Option<WorkloadName>,
}

impl Origin {
    /// The init, about no workload.
    pub(super) const INIT: Self = Self {
        source: Source::Init,
        workload: None,
    };
}

#[derive(Debug, Clone)]
pub(super) struct Queued {
    stream: LogStream,
    origin: Origin,
    continues: bool,
    sequence: u64,
    time_us: u64,
    data: Bytes,
}

impl Queued {
    fn cost(&self) -> usize {
        self.data.len() + RECORD_OVERHEAD
    }

    pub(super) fn record(&self) -> Record<'_> {
        Record {
            stream: self.stream,
            sequence: self.sequence,
            time_us: self.time_us,
            source: self.origin.source,
            continues: self.continues,
            data: &self.data,
            workload: self.origin.workload.as_deref(),
        }
    }
}

impl Queue {
    pub(super) fn new(when_full: WhenFull, buffer: LogBuffer, now: Instant) -> Self {
        Self {
            when_full,
            limit: buffer.bytes(),
            records: VecDeque::new(),
            bytes: 0,
            sent: 0,
            numbered: [0; STREAMS],
            carried: [0; STREAMS],
            waiting_since: now,
            dropped: [Dropped::default(); STREAMS],
            lost: [[0; REASONS]; STREAMS],
            is_abandoned: false,
        }
    }

    /// Records that were lost since the start.
    pub(super) fn losses(&self) -> Losses {
        let mut losses = Vec::new();
        for (stream, counts) in LogStream::ALL.into_iter().zip(&self.lost) {
            for (reason, &records) in LossReason::ALL.into_iter().zip(counts) {
                if records > 0 {
                    losses.push(Loss {
                        stream,
                        reason,
                        records,
                    });
                }
            }
        }
        Losses(losses)
    }

    /// The last number given, for each stream that has any.
    pub(super) fn numbered(&self) -> Vec<(LogStream, u64)> {
        LogStream::ALL
            .into_iter()
            .zip(self.numbered)
            .filter(|&(_, last)| last > 0)
            .collect()
    }

    /// Gives up what the parent does not hold, and whatever is still added.
    pub(super) fn abandon(&mut self) {
        self.is_abandoned = true;
        while let Some(record) = self.pop() {
            self.count_loss(record.stream, LossReason::Ended);
        }
    }

    fn count_loss(&mut self, stream: LogStream, reason: LossReason) {
        if let Some(count) = self
            .lost
            .get_mut(stream as usize)
            .and_then(|counts| counts.get_mut(reason as usize))
        {
            *count += 1;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Since when the parent has taken nothing of what there is.
    pub(super) fn waiting_since(&self) -> Option<Instant> {
        (!self.is_empty()).then_some(self.waiting_since)
    }

    /// Until when a piece that was not taken has to wait at most; for ever if
    /// there is no such time.
    pub(super) fn patience_ends(&self) -> Option<Instant> {
        match self.when_full {
            WhenFull::DropOldest => Some(self.waiting_since + PATIENCE),
            WhenFull::Block => None,
        }
    }

    /// Adds a piece of the workload's output, or gives it back for as long as it
    /// has to wait for room.
    pub(super) fn offer(
        &mut self,
        origin: &Origin,
        piece: Piece,
        now: Instant,
    ) -> Result<(), Piece> {
        let cost = piece.data.len() + RECORD_OVERHEAD;
        if !self.is_abandoned && self.bytes + cost > self.limit {
            if self.patience_ends().is_none_or(|end| now < end) {
                return Err(piece);
            }
            self.make_room(cost, self.limit);
        }
        self.push(LogStream::Application, origin, piece, now);
        Ok(())
    }

    /// Adds one of the init's own records. It does not wait: the oldest give way
    /// to it, or itself where none may.
    pub(super) fn add(
        &mut self,
        stream: LogStream,
        origin: &Origin,
        text: Bytes,
        time_us: u64,
        now: Instant,
    ) {
        let cost = text.len() + RECORD_OVERHEAD;
        let limit = self.limit + MAX_OWN;
        if self.bytes + cost > limit {
            match self.when_full {
                WhenFull::DropOldest => self.make_room(cost, limit),
                WhenFull::Block => {
                    let sequence = self.number(stream);
                    return self.count_drop(stream, sequence);
                }
            }
        }
        let piece = Piece {
            data: text,
            time_us,
            continues: false,
        };
        self.push(stream, origin, piece, now);
    }

    fn push(&mut self, stream: LogStream, origin: &Origin, piece: Piece, now: Instant) {
        if self.is_abandoned {
            self.number(stream);
            return self.count_loss(stream, LossReason::Ended);
        }
        if self.is_empty() {
            self.waiting_since = now;
        }
        let queued = Queued {
            stream,
            origin: origin.clone(),
            continues: piece.continues,
            sequence: self.number(stream),
            time_us: piece.time_us,
            data: piece.data,
        };
        self.bytes += queued.cost();
        self.records.push_back(queued);
    }

    fn make_room(&mut self, cost: usize, limit: usize) {
        while self.bytes + cost > limit
            && let Some(record) = self.pop()
        {
            self.count_drop(record.stream, record.sequence);
        }
    }

    fn count_drop(&mut self, stream: LogStream, sequence: u64) {
        self.count_loss(stream, LossReason::QueueFull);
        if let Some(dropped) = self.dropped.get_mut(stream as usize) {
            if dropped.count == 0 {
                dropped.first = sequence;
            }
            dropped.count += 1;
            dropped.last = sequence;
        }
    }

    fn number(&mut self, stream: LogStream) -> u64 {
        match self.numbered.get_mut(stream as usize) {
            Some(last) => {
                *last += 1;
                *last
            }
            None => 0,
        }
    }

    fn pop(&mut self) -> Option<Queued> {
        let record = self.records.pop_front()?;
        self.bytes -= record.cost();
        self.sent = self.sent.saturating_sub(1);
        Some(record)
    }

    /// A new connection begins: what the parent does not hold is carried again.
    /// True if it holds more than was known.
    pub(super) fn begin(&mut self, stored: &[(LogStream, u64)], now: Instant) -> bool {
        self.sent = 0;
        self.acknowledge(stored, now)
    }

    /// Forgets what the parent holds, in the order it came; true if that is
    /// anything. A parent cannot hold what was never carried to it, whatever it
    /// says.
    pub(super) fn acknowledge(&mut self, stored: &[(LogStream, u64)], now: Instant) -> bool {
        let mut held = [0; STREAMS];
        for &(stream, last) in stored {
            if let (Some(held), Some(&carried)) = (
                held.get_mut(stream as usize),
                self.carried.get(stream as usize),
            ) {
                *held = last.min(carried);
            }
        }
        let is_held = |record: &Queued| {
            held.get(record.stream as usize)
                .is_some_and(|&held| record.sequence <= held)
        };
        let before = self.records.len();
        while self.records.front().is_some_and(is_held) {
            self.pop();
        }
        let any = self.records.len() < before;
        if any {
            self.waiting_since = now;
        }
        any
    }

    /// Whether there are so few records to carry that they better wait for others,
    /// while the parent stores what it was given.
    pub(super) fn gathers(&self) -> bool {
        self.sent > 0 && self.records.len() - self.sent.min(self.records.len()) < FEW
    }

    /// The next records that this connection has not carried.
    pub(super) fn next_batch(&mut self, time_us: u64, now: Instant) -> Vec<Queued> {
        self.report_drops(time_us, now);
        let mut bytes = 0;
        let batch: Vec<_> = self
            .records
            .range(self.sent.min(self.records.len())..)
            .take(MAX_BATCH_RECORDS)
            .take_while(|record| {
                bytes += record.data.len();
                bytes <= MAX_BATCH
            })
            .cloned()
            .collect();
        self.sent += batch.len();
        for record in &batch {
            if let Some(carried) = self.carried.get_mut(record.stream as usize) {
                *carried = record.sequence.max(*carried);
            }
        }
        batch
    }

    /// Says which records gave way, as soon as that drops no other.
    fn report_drops(&mut self, time_us: u64, now: Instant) {
        if self.is_abandoned {
            return;
        }
        for stream in LogStream::ALL {
            let Some(dropped) = self.dropped.get_mut(stream as usize) else {
                continue;
            };
            let Dropped { count, first, last } = *dropped;
            if count == 0 {
                continue;
            }
            let text = format!(
                "{count} log records were dropped from {}, numbers {first} to {last}: the parent did not take them and the buffer was full",
                stream.name()
            );
            if self.bytes + text.len() + RECORD_OVERHEAD <= self.limit + MAX_OWN {
                *dropped = Dropped::default();
                self.add(LogStream::Errors, &Origin::INIT, text.into(), time_us, now);
            }
        }
    }
}

#[cfg(test)]
mod tests;
