//! Records on their way into the spool: what one batch will hold.

use bytes::BufMut;
use link::logs::{LogStream, Record};

use super::format::{
    BATCH_HEADER, BatchHeader, FULL_PAYLOAD, RECORD_HEADER, Stored, bit, checksum, put_record,
    take_record,
};
use super::positions::{Boot, STREAMS};

/// Records of one boot, encoded, with room for the header in front.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) boot: Boot,
    bytes: Vec<u8>,
    count: u32,
    streams: u8,
    /// The first and the last number, for each stream that has any.
    range: [Option<(u64, u64)>; STREAMS],
    /// Numbers left out between them.
    gaps: u64,
}

/// Encodes the records that are beyond `held`, in as many chunks as it takes.
pub(super) fn encode(boot: Boot, held: [u64; STREAMS], records: &[Record<'_>]) -> Vec<Chunk> {
    let mut chunks = Vec::new();
    let mut last = held;
    let data: usize = records.iter().map(|record| record.data.len()).sum();
    let mut chunk = Chunk::new(boot, data + records.len() * RECORD_HEADER);
    for record in records {
        let Some(last) = last.get_mut(record.stream as usize) else {
            continue;
        };
        if record.sequence <= *last {
            continue;
        }
        *last = record.sequence;
        chunk.push(&record.into());
        if chunk.bytes.len() >= BATCH_HEADER + FULL_PAYLOAD {
            chunks.push(std::mem::replace(&mut chunk, Chunk::new(boot, 0)));
        }
    }
    if chunk.count > 0 {
        chunks.push(chunk);
    }
    chunks
}

impl Chunk {
    fn new(boot: Boot, capacity: usize) -> Self {
        let mut bytes = Vec::with_capacity(BATCH_HEADER + capacity.min(FULL_PAYLOAD));
        bytes.put_bytes(0, BATCH_HEADER);
        Self {
            boot,
            bytes,
            count: 0,
            streams: 0,
            range: [None; STREAMS],
            gaps: 0,
        }
    }

    /// One record of the agent's own.
    pub(super) fn own(stream: LogStream, sequence: u64, time_us: u64, text: &[u8]) -> Self {
        let mut chunk = Self::new(Boot::AGENT, RECORD_HEADER + text.len());
        chunk.push(&Stored {
            stream,
            sequence,
            time_us,
            source: super::Source::Agent,
            continues: false,
            workload: None,
            data: text,
        });
        chunk
    }

    fn push(&mut self, record: &Stored<'_>) {
        put_record(record, &mut self.bytes);
        self.count += 1;
        self.streams |= bit(record.stream);
        if let Some(range) = self.range.get_mut(record.stream as usize) {
            let (first, last) = range.unwrap_or((record.sequence, record.sequence));
            let gap = record.sequence.saturating_sub(last).saturating_sub(1);
            self.gaps = self.gaps.saturating_add(gap);
            *range = Some((first, record.sequence));
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) fn count(&self) -> u32 {
        self.count
    }

    /// Bytes of the batch, header included.
    pub(super) fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Takes out what is held by now: a connection that was given up may have
    /// stored it meanwhile.
    pub(super) fn beyond(self, held: [u64; STREAMS]) -> Self {
        let overlaps = self
            .range
            .iter()
            .zip(held)
            .any(|(range, held)| range.is_some_and(|(first, _)| first <= held));
        if !overlaps {
            return self;
        }
        let mut rest = self
            .bytes
            .get(BATCH_HEADER..)
            .expect("a chunk begins with room for its header");
        let mut chunk = Self::new(self.boot, rest.len());
        while let Some(record) = take_record(&mut rest) {
            let held = *held
                .get(record.stream as usize)
                .expect("a number for each stream");
            if record.sequence > held {
                chunk.push(&record);
            }
        }
        chunk
    }

    /// How far the streams have come with it, and how many numbers it leaves out.
    pub(super) fn advance(&self, held: [u64; STREAMS]) -> ([u64; STREAMS], u64) {
        let mut last = held;
        let mut missing = self.gaps;
        for (range, last) in self.range.iter().zip(&mut last) {
            if let Some((first, to)) = range {
                missing = missing.saturating_add(first.saturating_sub(*last).saturating_sub(1));
                *last = *to;
            }
        }
        (last, missing)
    }

    /// The batch's bytes at its place.
    pub(super) fn finish(&mut self, salt: u32, offset: u64, first: u64, stored_us: u64) -> &[u8] {
        if let Some((room, payload)) = self.bytes.split_first_chunk_mut::<BATCH_HEADER>() {
            let header = BatchHeader {
                length: u32::try_from(payload.len()).expect("chunks are full long before"),
                offset,
                first,
                count: self.count,
                streams: self.streams,
                stored_us,
                boot: self.boot,
                checksum: checksum(salt, payload),
            };
            *room = header.encode(salt);
        }
        &self.bytes
    }
}
