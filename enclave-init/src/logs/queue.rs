//! Records that the parent does not hold yet: numbered per stream, bounded in
//! memory.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use link::logs::{LogStream, MAX_BATCH_RECORDS, Record, Source};

/// Memory that records may take, in bytes.
const MAX_QUEUED: usize = 4 * 1024 * 1024;
/// What the init's own records may take beyond that, so that they do not push
/// the workload's out while those wait for room.
const MAX_OWN: usize = 256 * 1024;
/// What a record costs beyond its text: its place in the queue, which grows by
/// doubling, and the allocation of its text.
const RECORD_OVERHEAD: usize = 128;
/// Text of one batch, in bytes; with the records' fields it stays below a frame's limit.
const MAX_BATCH: usize = 256 * 1024;

const STREAMS: usize = LogStream::ALL.len();

#[derive(Debug, Default)]
pub(super) struct Queue {
    records: VecDeque<Queued>,
    bytes: usize,
    /// How many records at the front the current connection has carried.
    sent: usize,
    /// The last number given, for each stream.
    numbered: [u64; STREAMS],
    /// The last number that any connection has carried, for each stream.
    carried: [u64; STREAMS],
    /// Whether the parent takes records.
    pub(super) connected: bool,
    dropped: u64,
}

#[derive(Debug, Clone)]
pub(super) struct Queued {
    stream: LogStream,
    source: Source,
    continues: bool,
    sequence: u64,
    time_us: u64,
    data: Arc<[u8]>,
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
    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Whether a record of so many bytes fits without another being dropped.
    pub(super) fn has_room(&self, source: Source, bytes: usize) -> bool {
        let limit = match source {
            Source::Init => MAX_QUEUED + MAX_OWN,
            Source::Stdout | Source::Stderr => MAX_QUEUED,
        };
        self.bytes + bytes + RECORD_OVERHEAD <= limit
    }

    /// Adds a record; the oldest give way to it and are counted.
    pub(super) fn push(
        &mut self,
        stream: LogStream,
        source: Source,
        continues: bool,
        data: Arc<[u8]>,
    ) {
        while !self.has_room(source, data.len()) && self.pop() {
            self.dropped += 1;
        }
        let queued = Queued {
            stream,
            source,
            continues,
            sequence: self.number(stream),
            time_us: now_us(),
            data,
        };
        self.bytes += queued.cost();
        self.records.push_back(queued);
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

    fn pop(&mut self) -> bool {
        let Some(record) = self.records.pop_front() else {
            return false;
        };
        self.bytes -= record.cost();
        self.sent = self.sent.saturating_sub(1);
        true
    }

    /// A new connection begins: what the parent does not hold is carried again.
    pub(super) fn begin(&mut self, stored: &[(LogStream, u64)]) {
        self.acknowledge(stored);
        self.sent = 0;
        self.connected = true;
    }

    /// Forgets what the parent holds: records leave in the order they came. A
    /// parent cannot hold what was never carried to it, whatever it says.
    pub(super) fn acknowledge(&mut self, stored: &[(LogStream, u64)]) {
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
        while self.records.front().is_some_and(is_held) {
            self.pop();
        }
    }

    /// The next records that this connection has not carried.
    pub(super) fn next_batch(&mut self) -> Vec<Queued> {
        self.report_drops();
        let mut bytes = 0;
        let batch: Vec<_> = self
            .records
            .iter()
            .skip(self.sent)
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

    /// Says how many records gave way, as soon as that drops no other.
    fn report_drops(&mut self) {
        let text = format!(
            "{} log records were dropped while the parent took none",
            self.dropped
        );
        if self.dropped > 0 && self.has_room(Source::Init, text.len()) {
            self.dropped = 0;
            let text = text.into_bytes().into();
            self.push(LogStream::Errors, Source::Init, false, text);
        }
    }
}

fn now_us() -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use link::logs::MAX_RECORD;
    use proptest::prelude::*;

    use super::*;

    fn application(queue: &mut Queue, length: usize) {
        let data = vec![b'a'; length].into();
        queue.push(LogStream::Application, Source::Stdout, false, data);
    }

    fn system(queue: &mut Queue) {
        let data = b"s".as_slice().into();
        queue.push(LogStream::System, Source::Init, false, data);
    }

    fn numbers(batch: &[Queued]) -> Vec<(LogStream, u64)> {
        batch
            .iter()
            .map(|record| (record.stream, record.sequence))
            .collect()
    }

    #[test]
    fn a_full_queue_drops_the_oldest_and_says_so_once() {
        let mut queue = Queue::default();
        for _ in 0..100 {
            application(&mut queue, MAX_RECORD);
        }
        assert!(queue.bytes <= MAX_QUEUED);
        let kept = queue.records.len() as u64;
        assert_eq!(queue.records.front().unwrap().sequence, 101 - kept);
        queue.begin(&[]);
        let mut carried = Vec::new();
        loop {
            let batch = queue.next_batch();
            if batch.is_empty() {
                break;
            }
            carried.extend(batch);
        }
        let report = carried.pop().unwrap();
        let text = format!("{} log records were dropped", 100 - kept);
        assert!(report.data.starts_with(text.as_bytes()));
        assert_eq!(report.stream, LogStream::Errors);
        assert_eq!(carried.len() as u64, kept, "the report displaces nothing");
    }

    #[test]
    fn a_report_that_has_no_room_waits() {
        let mut queue = Queue::default();
        while queue.dropped == 0 {
            let text = vec![b's'; MAX_RECORD].into();
            queue.push(LogStream::System, Source::Init, false, text);
        }
        while queue.has_room(Source::Init, 0) {
            queue.push(LogStream::System, Source::Init, false, Arc::default());
        }
        queue.begin(&[]);
        let mut batches = 0;
        while !queue.next_batch().is_empty() {
            batches += 1;
            assert!(batches < 100, "reports displace records for ever");
        }
        assert_eq!(queue.dropped, 1);
        queue.acknowledge(&[(LogStream::System, 5)]);
        let batch = queue.next_batch();
        assert_eq!(numbers(&batch), [(LogStream::Errors, 1)]);
    }

    #[test]
    fn the_inits_own_records_do_not_displace_the_workloads() {
        let mut queue = Queue::default();
        while queue.has_room(Source::Stdout, MAX_RECORD) {
            application(&mut queue, MAX_RECORD);
        }
        system(&mut queue);
        assert_eq!(queue.dropped, 0);
    }

    #[test]
    fn acknowledged_records_leave() {
        let mut queue = Queue::default();
        queue.begin(&[]);
        for _ in 0..3 {
            application(&mut queue, 1);
            system(&mut queue);
        }
        assert_eq!(queue.next_batch().len(), 6);
        queue.acknowledge(&[(LogStream::Application, 3), (LogStream::System, 1)]);
        assert_eq!((queue.records.len(), queue.sent), (3, 3));
        queue.acknowledge(&[(LogStream::Application, 3), (LogStream::System, 3)]);
        assert_eq!((queue.records.len(), queue.bytes, queue.sent), (0, 0, 0));
    }

    #[test]
    fn numbers_that_were_never_carried_are_not_acknowledged() {
        let mut queue = Queue::default();
        queue.begin(&[(LogStream::Application, u64::MAX)]);
        application(&mut queue, 1);
        queue.acknowledge(&[(LogStream::Application, 1)]);
        assert_eq!(queue.records.len(), 1);
        queue.next_batch();
        application(&mut queue, 1);
        queue.acknowledge(&[(LogStream::Application, u64::MAX)]);
        assert_eq!(numbers(&queue.next_batch()), [(LogStream::Application, 2)]);
    }

    proptest! {
        /// Whatever connections come and go, and wherever they break, the parent
        /// ends with every record, each once, if it takes only what is next.
        #[test]
        fn nothing_is_lost_or_twice_across_connections(
            steps in prop::collection::vec((0_u8..4, 0_usize..5), 1..60),
        ) {
            let mut queue = Queue::default();
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
                        application(&mut queue, 10);
                        system(&mut queue);
                        pushed += 1;
                    },
                    1 => wire.extend(numbers(&queue.next_batch())),
                    2 => {
                        for record in wire.drain(..count.min(wire.len())) {
                            take(&mut held, record);
                        }
                        queue.acknowledge(&stored(&held));
                    }
                    _ => {
                        wire.clear();
                        queue.begin(&stored(&held));
                    }
                }
            }
            queue.begin(&stored(&held));
            for record in numbers(&queue.next_batch()) {
                take(&mut held, record);
            }
            queue.acknowledge(&stored(&held));
            prop_assert!(queue.is_empty());
            prop_assert_eq!(held[LogStream::Application as usize], pushed);
            prop_assert_eq!(held[LogStream::System as usize], pushed);
        }
    }
}
