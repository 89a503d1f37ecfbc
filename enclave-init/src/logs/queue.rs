//! Records that the parent does not hold yet: numbered per stream, bounded in
//! memory.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use link::control::{Loss, LossReason, Losses};
use link::logs::{LogStream, MAX_BATCH_RECORDS, Record, Source};
use manifest::{LogBuffer, WhenFull};
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

#[derive(Debug, Clone)]
pub(super) struct Queued {
    stream: LogStream,
    source: Source,
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
            source: self.source,
            continues: self.continues,
            data: &self.data,
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
        source: Source,
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
        self.push(LogStream::Application, source, piece, now);
        Ok(())
    }

    /// Adds one of the init's own records. It does not wait: the oldest give way
    /// to it, or itself where none may.
    pub(super) fn add(&mut self, stream: LogStream, text: Bytes, time_us: u64, now: Instant) {
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
        self.push(stream, Source::Init, piece, now);
    }

    fn push(&mut self, stream: LogStream, source: Source, piece: Piece, now: Instant) {
        if self.is_abandoned {
            self.number(stream);
            return self.count_loss(stream, LossReason::Ended);
        }
        if self.is_empty() {
            self.waiting_since = now;
        }
        let queued = Queued {
            stream,
            source,
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
                self.add(LogStream::Errors, text.into(), time_us, now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use link::logs::MAX_RECORD;
    use proptest::prelude::*;

    use super::*;

    fn queue(when_full: WhenFull) -> (Queue, Instant) {
        let now = Instant::now();
        (Queue::new(when_full, LogBuffer::default(), now), now)
    }

    fn offer(queue: &mut Queue, length: usize, now: Instant) -> bool {
        let piece = Piece {
            data: vec![b'a'; length].into(),
            time_us: 0,
            continues: false,
        };
        queue.offer(Source::Stdout, piece, now).is_ok()
    }

    fn application(queue: &mut Queue, now: Instant) {
        assert!(offer(queue, 10, now));
    }

    fn system(queue: &mut Queue, length: usize, now: Instant) {
        queue.add(LogStream::System, vec![b's'; length].into(), 0, now);
    }

    /// Everything that a new connection would carry.
    fn carry(queue: &mut Queue, now: Instant) -> Vec<Queued> {
        queue.begin(&[], now);
        let mut carried = Vec::new();
        loop {
            let batch = queue.next_batch(0, now);
            if batch.is_empty() {
                return carried;
            }
            carried.extend(batch);
            assert!(carried.len() < 100_000, "reports displace records for ever");
        }
    }

    fn text(record: &Queued) -> &str {
        std::str::from_utf8(&record.data).unwrap()
    }

    fn numbers(batch: &[Queued]) -> Vec<(LogStream, u64)> {
        batch
            .iter()
            .map(|record| (record.stream, record.sequence))
            .collect()
    }

    #[test]
    fn a_full_queue_waits_and_then_drops_the_oldest_and_says_so_once() {
        let (mut queue, start) = queue(WhenFull::DropOldest);
        let mut kept = 0;
        while offer(&mut queue, MAX_RECORD, start) {
            kept += 1;
        }
        assert!(queue.bytes <= queue.limit && kept == 63);
        let end = start + PATIENCE;
        assert!(!offer(
            &mut queue,
            MAX_RECORD,
            end - Duration::from_millis(1)
        ));
        for _ in 0..10 {
            assert!(offer(&mut queue, MAX_RECORD, end));
        }
        assert!(queue.bytes <= queue.limit);
        assert_eq!(queue.records.front().unwrap().sequence, 11);
        let mut carried = carry(&mut queue, end);
        let report = carried.pop().unwrap();
        assert!(
            text(&report)
                .starts_with("10 log records were dropped from application, numbers 1 to 10:"),
            "{report:?}"
        );
        assert_eq!(report.stream, LogStream::Errors);
        assert_eq!(carried.len(), kept, "the report displaces nothing");
        // Taking records ends the drops: the workload waits again.
        assert!(queue.acknowledge(&[(LogStream::Application, 11)], end));
        assert!(offer(&mut queue, MAX_RECORD, end));
        assert!(!offer(&mut queue, MAX_RECORD, end));
    }

    #[test]
    fn patience_begins_when_there_is_something_to_take() {
        let (mut queue, start) = queue(WhenFull::DropOldest);
        let later = start + Duration::from_secs(3600);
        while offer(&mut queue, MAX_RECORD, later) {}
        assert_eq!(queue.waiting_since(), Some(later));
        assert_eq!(queue.patience_ends(), Some(later + PATIENCE));
        // A parent that comes and takes nothing buys no time.
        let end = later + PATIENCE;
        assert!(!queue.begin(&[(LogStream::Application, 5)], end));
        assert!(offer(&mut queue, 1, end));
    }

    #[test]
    fn a_queue_that_blocks_never_drops_the_workloads_records() {
        let (mut queue, start) = queue(WhenFull::Block);
        let mut kept = 0;
        while offer(&mut queue, MAX_RECORD, start) {
            kept += 1;
        }
        let later = start + Duration::from_secs(3600);
        assert!(!offer(&mut queue, MAX_RECORD, later));
        assert_eq!(queue.patience_ends(), None);
        let mut own = 0;
        while queue.dropped[LogStream::System as usize].count < 3 {
            // Smaller than a report.
            system(&mut queue, 0, later);
            own += 1;
        }
        let carried = carry(&mut queue, later);
        let application = |record: &&Queued| record.stream == LogStream::Application;
        assert_eq!(carried.iter().filter(application).count(), kept);
        queue.acknowledge(&[(LogStream::Application, 1)], later);
        let batch = queue.next_batch(0, later);
        let expected = format!(
            "3 log records were dropped from system, numbers {} to {own}:",
            own - 2
        );
        assert!(text(&batch[0]).starts_with(&expected), "{batch:?}");
    }

    #[test]
    fn a_report_that_has_no_room_waits() {
        let (mut queue, now) = queue(WhenFull::DropOldest);
        while queue.dropped[LogStream::System as usize].count == 0 {
            system(&mut queue, MAX_RECORD, now);
        }
        while queue.bytes + RECORD_OVERHEAD <= queue.limit + MAX_OWN {
            system(&mut queue, 0, now);
        }
        carry(&mut queue, now);
        assert_eq!(queue.dropped[LogStream::System as usize].count, 1);
        queue.acknowledge(&[(LogStream::System, 5)], now);
        let batch = queue.next_batch(0, now);
        assert_eq!(numbers(&batch), [(LogStream::Errors, 1)]);
    }

    #[test]
    fn losses_of_a_queue_that_is_given_up_are_all_that_is_not_held() {
        for when_full in [WhenFull::DropOldest, WhenFull::Block] {
            let (mut queue, now) = queue(when_full);
            for _ in 0..5 {
                application(&mut queue, now);
                system(&mut queue, 1, now);
            }
            carry(&mut queue, now);
            queue.acknowledge(&[(LogStream::Application, 2), (LogStream::System, 1)], now);
            queue.abandon();
            // What still comes waits for nothing, and nothing reports it.
            while queue.lost[LogStream::Application as usize][LossReason::Ended as usize] < 100 {
                application(&mut queue, now);
            }
            assert!(queue.is_empty() && queue.bytes == 0);
            assert_eq!(queue.next_batch(0, now).len(), 0);
            let loss = |stream, records| Loss {
                stream,
                reason: LossReason::Ended,
                records,
            };
            let expected = [
                loss(LogStream::Application, 100),
                loss(LogStream::System, 4),
            ];
            assert_eq!(queue.losses().0, expected);
            let numbered = [(LogStream::Application, 102), (LogStream::System, 5)];
            assert_eq!(queue.numbered(), numbered);
        }
    }

    #[test]
    fn drops_are_reported_for_each_stream() {
        let (mut queue, now) = queue(WhenFull::DropOldest);
        for _ in 0..10 {
            system(&mut queue, 1, now);
        }
        while offer(&mut queue, MAX_RECORD, now) {}
        for _ in 0..3 {
            assert!(offer(&mut queue, MAX_RECORD, now + PATIENCE));
        }
        let carried = carry(&mut queue, now);
        let reports: Vec<_> = carried
            .iter()
            .filter(|record| record.stream == LogStream::Errors)
            .map(|record| text(record).split(':').next().unwrap())
            .collect();
        assert_eq!(
            reports,
            [
                "3 log records were dropped from application, numbers 1 to 3",
                "10 log records were dropped from system, numbers 1 to 10"
            ]
        );
    }

    #[test]
    fn the_inits_own_records_do_not_displace_the_workloads() {
        let (mut queue, now) = queue(WhenFull::DropOldest);
        while offer(&mut queue, MAX_RECORD, now) {}
        system(&mut queue, 1, now);
        assert!(queue.dropped.iter().all(|dropped| dropped.count == 0));
    }

    #[test]
    fn few_records_wait_for_an_acknowledgement_and_many_do_not() {
        let (mut queue, now) = queue(WhenFull::Block);
        queue.begin(&[], now);
        application(&mut queue, now);
        assert!(!queue.gathers(), "nothing is on its way");
        assert_eq!(queue.next_batch(0, now).len(), 1);
        for _ in 1..FEW {
            application(&mut queue, now);
        }
        assert!(queue.gathers());
        application(&mut queue, now);
        assert!(!queue.gathers());
        queue.acknowledge(&[(LogStream::Application, 1)], now);
        queue.next_batch(0, now);
        queue.acknowledge(&[(LogStream::Application, 1 + FEW as u64)], now);
        application(&mut queue, now);
        assert!(!queue.gathers());
    }

    #[test]
    fn acknowledged_records_leave() {
        let (mut queue, now) = queue(WhenFull::DropOldest);
        queue.begin(&[], now);
        for _ in 0..3 {
            application(&mut queue, now);
            system(&mut queue, 1, now);
        }
        assert_eq!(queue.next_batch(0, now).len(), 6);
        // In any order of the streams.
        queue.acknowledge(&[(LogStream::System, 1), (LogStream::Application, 3)], now);
        assert_eq!((queue.records.len(), queue.sent), (3, 3));
        queue.acknowledge(&[(LogStream::Application, 3), (LogStream::System, 3)], now);
        assert_eq!((queue.records.len(), queue.bytes, queue.sent), (0, 0, 0));
        assert_eq!(queue.waiting_since(), None);
    }

    #[test]
    fn numbers_that_were_never_carried_are_not_acknowledged() {
        let (mut queue, now) = queue(WhenFull::DropOldest);
        queue.begin(&[(LogStream::Application, u64::MAX)], now);
        application(&mut queue, now);
        queue.acknowledge(&[(LogStream::Application, 1)], now);
        assert_eq!(queue.records.len(), 1);
        queue.next_batch(0, now);
        application(&mut queue, now);
        queue.acknowledge(&[(LogStream::Application, u64::MAX)], now);
        assert_eq!(
            numbers(&queue.next_batch(0, now)),
            [(LogStream::Application, 2)]
        );
    }

    #[test]
    fn a_parent_that_has_forgotten_gets_what_is_still_here() {
        let (mut queue, now) = queue(WhenFull::DropOldest);
        queue.begin(&[], now);
        for _ in 0..5 {
            application(&mut queue, now);
        }
        queue.next_batch(0, now);
        queue.acknowledge(&[(LogStream::Application, 3)], now);
        for held in [0, 1, 3] {
            queue.begin(&[(LogStream::Application, held)], now);
            let numbers = numbers(&queue.next_batch(0, now));
            assert_eq!(
                numbers,
                [4, 5].map(|number| (LogStream::Application, number))
            );
        }
    }

    proptest! {
        /// Whatever connections come and go, and wherever they break, the parent
        /// ends with every record, each once, if it takes only what is next.
        #[test]
        fn nothing_is_lost_or_twice_across_connections(
            steps in prop::collection::vec((0_u8..4, 0_usize..5), 1..60),
        ) {
            let (mut queue, now) = queue(WhenFull::DropOldest);
            let mut held = [0_u64; STREAMS];
            let mut wire = VecDeque::new();
            let mut pushed = 0;
            let stored = |held: &[u64; STREAMS]| {
                LogStream::ALL.into_iter().zip(*held).collect::<Vec<_>>()
            };
            let take = |held: &mut [u64; STREAMS], (stream, sequence): (LogStream, u64)| {
                let last = &mut held[stream as usize];
                if sequence > *last {
                    assert_eq!(sequence, *last + 1, "a gap");
                    *last = sequence;
                }
            };
            for (kind, count) in steps {
                match kind {
                    0 => for _ in 0..count {
                        application(&mut queue, now);
                        system(&mut queue, 1, now);
                        pushed += 1;
                    },
                    1 => wire.extend(numbers(&queue.next_batch(0, now))),
                    2 => {
                        for record in wire.drain(..count.min(wire.len())) {
                            take(&mut held, record);
                        }
                        queue.acknowledge(&stored(&held), now);
                    }
                    _ => {
                        wire.clear();
                        queue.begin(&stored(&held), now);
                    }
                }
            }
            queue.begin(&stored(&held), now);
            for record in numbers(&queue.next_batch(0, now)) {
                take(&mut held, record);
            }
            queue.acknowledge(&stored(&held), now);
            prop_assert!(queue.is_empty());
            prop_assert_eq!(held[LogStream::Application as usize], pushed);
            prop_assert_eq!(held[LogStream::System as usize], pushed);
        }
    }
}
