//! The bytes of a segment: a header, then batches.
//!
//! ```text
//! segment  = header (1024 bytes) batch*
//! batch    = header (64 bytes) record*
//! record   = tag (1) sequence (8) time (8) length (4) [length (1) workload] data
//! ```
//!
//! All numbers are big-endian. A batch is valid only at the place that it names,
//! and its checksums begin with the segment's salt, which is in the file's name:
//! so bytes that an enclave logs are never taken for a batch.

use bytes::{Buf, BufMut};
use crc32fast::Hasher;
use link::MAX_NAME;
use link::logs::{LogStream, MAX_RECORD, Record};

use super::positions::{Boot, MAX_BOOTS, Positions, STREAMS};

/// Bytes of a segment's header.
pub(super) const SEGMENT_HEADER: usize = 1024;
/// Bytes of a batch's header.
pub(super) const BATCH_HEADER: usize = 64;
/// Bytes of a record beside its data.
pub(super) const RECORD_HEADER: usize = 1 + 8 + 8 + 4;
/// A batch takes no further record once it has so many bytes.
pub(super) const FULL_PAYLOAD: usize = 1024 * 1024;
/// Most bytes of a batch's records.
pub(super) const MAX_PAYLOAD: usize = FULL_PAYLOAD + RECORD_HEADER + 1 + MAX_NAME + MAX_RECORD;

const SEGMENT_MAGIC: [u8; 8] = *b"ENCLSPL1";
/// How a batch begins.
pub(super) const BATCH_MAGIC: [u8; 4] = [0xe7, b'B', b'A', 0x1a];

/// Where a record was read, the agent's own records among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The workload's standard output.
    Stdout,
    /// The workload's standard error.
    Stderr,
    /// The enclave's init.
    Init,
    /// This agent.
    Agent,
}

impl Source {
    /// Its name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::Init => "init",
            Self::Agent => "agent",
        }
    }
}

impl From<link::logs::Source> for Source {
    fn from(source: link::logs::Source) -> Self {
        match source {
            link::logs::Source::Stdout => Self::Stdout,
            link::logs::Source::Stderr => Self::Stderr,
            link::logs::Source::Init => Self::Init,
        }
    }
}

/// A record as the spool holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored<'a> {
    /// The stream it belongs to.
    pub stream: LogStream,
    /// Its number in the stream of its boot, from 1.
    pub sequence: u64,
    /// When it was read, by the clock of who read it: microseconds since 1970.
    pub time_us: u64,
    /// Where it was read.
    pub source: Source,
    /// Whether the line goes on in the next record of the same source.
    pub continues: bool,
    /// The workload that it is of, where there are several.
    pub workload: Option<&'a str>,
    /// The line's bytes, without its end.
    pub data: &'a [u8],
}

impl<'a> From<&Record<'a>> for Stored<'a> {
    fn from(record: &Record<'a>) -> Self {
        Self {
            stream: record.stream,
            sequence: record.sequence,
            time_us: record.time_us,
            source: record.source.into(),
            continues: record.continues,
            workload: record.workload,
            data: record.data,
        }
    }
}

/// The bit of a stream in a set of streams.
pub(super) const fn bit(stream: LogStream) -> u8 {
    1 << stream as u8
}

/// Appends a record's bytes.
pub(super) fn put_record(record: &Stored<'_>, bytes: &mut Vec<u8>) {
    let source = match record.source {
        Source::Stdout => 0,
        Source::Stderr => 1,
        Source::Init => 2,
        Source::Agent => 3,
    };
    let workload = record.workload.map(str::as_bytes);
    let workload = workload.and_then(|name| Some((u8::try_from(name.len()).ok()?, name)));
    let has_name = u8::from(workload.is_some());
    bytes.put_u8(
        record.stream as u8 | source << 2 | u8::from(record.continues) << 4 | has_name << 5,
    );
    bytes.put_u64(record.sequence);
    bytes.put_u64(record.time_us);
    bytes.put_u32(u32::try_from(record.data.len()).expect("at most MAX_RECORD bytes"));
    if let Some((length, name)) = workload {
        bytes.put_u8(length);
        bytes.put_slice(name);
    }
    bytes.put_slice(record.data);
}

/// Takes the first record off `bytes`, if there is a whole one.
pub(super) fn take_record<'a>(bytes: &mut &'a [u8]) -> Option<Stored<'a>> {
    let mut rest = *bytes;
    let tag = rest.try_get_u8().ok()?;
    let stream = LogStream::ALL.get(usize::from(tag & 3)).copied()?;
    let source = match tag >> 2 & 3 {
        0 => Source::Stdout,
        1 => Source::Stderr,
        2 => Source::Init,
        _ => Source::Agent,
    };
    let sequence = rest.try_get_u64().ok()?;
    let time_us = rest.try_get_u64().ok()?;
    let length = usize::try_from(rest.try_get_u32().ok()?).ok()?;
    let workload = if tag >> 5 & 1 == 1 {
        let length = usize::from(rest.try_get_u8().ok()?);
        let (name, after) = rest.split_at_checked(length)?;
        rest = after;
        Some(std::str::from_utf8(name).ok()?)
    } else {
        None
    };
    let (data, rest) = rest.split_at_checked(length)?;
    *bytes = rest;
    Some(Stored {
        stream,
        sequence,
        time_us,
        source,
        continues: tag >> 4 & 1 == 1,
        workload,
        data,
    })
}

/// What a batch says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BatchHeader {
    /// Bytes of its records.
    pub(super) length: u32,
    /// Where it begins in its segment.
    pub(super) offset: u64,
    /// The number of its first record, counted over the whole spool from 0.
    pub(super) first: u64,
    /// How many records it has.
    pub(super) count: u32,
    /// The streams that they are of, a [`bit`] each.
    pub(super) streams: u8,
    /// When it was stored, by the agent's clock: microseconds since 1970.
    pub(super) stored_us: u64,
    /// The boot that they are of.
    pub(super) boot: Boot,
    /// Checksum of the records.
    pub(super) checksum: u32,
}

impl BatchHeader {
    pub(super) fn encode(&self, salt: u32) -> [u8; BATCH_HEADER] {
        let mut header = [0; BATCH_HEADER];
        let mut bytes = header.as_mut_slice();
        bytes.put_slice(&BATCH_MAGIC);
        bytes.put_u32(self.length);
        bytes.put_u64(self.offset);
        bytes.put_u64(self.first);
        bytes.put_u32(self.count);
        bytes.put_u8(self.streams);
        bytes.put_bytes(0, 3);
        bytes.put_u64(self.stored_us);
        bytes.put_slice(&self.boot.0);
        bytes.put_u32(self.checksum);
        let (summed, sum) = header.split_at_mut(BATCH_HEADER - 4);
        sum.copy_from_slice(&checksum(salt, summed).to_be_bytes());
        header
    }

    /// The header at `offset`, if one is there and is whole.
    pub(super) fn decode(header: &[u8; BATCH_HEADER], salt: u32, offset: u64) -> Option<Self> {
        let (summed, mut sum) = header.split_at_checked(BATCH_HEADER - 4)?;
        let mut bytes = summed.strip_prefix(&BATCH_MAGIC)?;
        let length = bytes.try_get_u32().ok()?;
        let place = bytes.try_get_u64().ok()?;
        if place != offset || length as usize > MAX_PAYLOAD {
            return None;
        }
        let first = bytes.try_get_u64().ok()?;
        let count = bytes.try_get_u32().ok()?;
        let streams = bytes.try_get_u8().ok()?;
        bytes.try_get_uint(3).ok()?;
        let stored_us = bytes.try_get_u64().ok()?;
        let (boot, mut bytes) = bytes.split_first_chunk()?;
        let header = Self {
            length,
            offset,
            first,
            count,
            streams,
            stored_us,
            boot: Boot(*boot),
            checksum: bytes.try_get_u32().ok()?,
        };
        (sum.try_get_u32().ok()? == checksum(salt, summed)).then_some(header)
    }

    /// Bytes of the batch, header included.
    pub(super) fn size(&self) -> u64 {
        BATCH_HEADER as u64 + u64::from(self.length)
    }

    /// The number behind its last record's.
    pub(super) fn end(&self) -> u64 {
        self.first.saturating_add(u64::from(self.count))
    }
}

/// What a segment begins with: what one must know of all earlier ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    /// The number of its first record.
    pub(super) first: u64,
    /// How far the streams had come.
    pub(super) positions: Positions,
}

impl SegmentHeader {
    pub(super) fn encode(&self, salt: u32) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(SEGMENT_HEADER);
        bytes.put_slice(&SEGMENT_MAGIC);
        bytes.put_u64(self.first);
        let boots = self.positions.boots();
        bytes.put_u32(u32::try_from(boots.len()).expect("at most MAX_BOOTS"));
        for (boot, last) in boots {
            bytes.put_slice(&boot.0);
            for &sequence in last {
                bytes.put_u64(sequence);
            }
        }
        bytes.resize(SEGMENT_HEADER - 4, 0);
        bytes.put_u32(checksum(salt, &bytes));
        bytes
    }

    pub(super) fn decode(header: &[u8; SEGMENT_HEADER], salt: u32) -> Option<Self> {
        let (summed, mut sum) = header.split_at_checked(SEGMENT_HEADER - 4)?;
        if sum.try_get_u32().ok()? != checksum(salt, summed) {
            return None;
        }
        let mut bytes = summed.strip_prefix(&SEGMENT_MAGIC)?;
        let first = bytes.try_get_u64().ok()?;
        let count = usize::try_from(bytes.try_get_u32().ok()?).ok()?;
        let mut positions = Positions::default();
        for _ in 0..count.min(MAX_BOOTS) {
            let (boot, rest) = bytes.split_first_chunk()?;
            bytes = rest;
            let mut last = [0; STREAMS];
            for sequence in &mut last {
                *sequence = bytes.try_get_u64().ok()?;
            }
            positions.set(Boot(*boot), last);
        }
        Some(Self { first, positions })
    }
}

/// CRC-32 that begins with a salt.
pub(super) fn checksum(salt: u32, bytes: &[u8]) -> u32 {
    let mut hasher = Hasher::new_with_initial(salt);
    hasher.update(bytes);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_record() -> impl Strategy<Value = (u8, u64, u64, u8, bool, Vec<u8>)> {
        (
            0..4u8,
            any::<u64>(),
            any::<u64>(),
            0..4u8,
            any::<bool>(),
            proptest::collection::vec(any::<u8>(), 0..200),
        )
    }

    fn stored(
        (stream, sequence, time_us, source, continues, data): &(u8, u64, u64, u8, bool, Vec<u8>),
    ) -> Stored<'_> {
        let sources = [Source::Stdout, Source::Stderr, Source::Init, Source::Agent];
        Stored {
            stream: LogStream::ALL[usize::from(*stream)],
            sequence: *sequence,
            time_us: *time_us,
            source: sources[usize::from(*source)],
            continues: *continues,
            workload: continues.then_some("web"),
            data,
        }
    }

    proptest! {
        #[test]
        fn records_survive_the_trip(records in proptest::collection::vec(any_record(), 0..20)) {
            let mut bytes = Vec::new();
            for record in &records {
                put_record(&stored(record), &mut bytes);
            }
            let mut rest = bytes.as_slice();
            for record in &records {
                prop_assert_eq!(take_record(&mut rest), Some(stored(record)));
            }
            prop_assert!(rest.is_empty());
            prop_assert_eq!(take_record(&mut rest), None);
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut rest = bytes.as_slice();
            while take_record(&mut rest).is_some() {}
        }

        #[test]
        fn a_header_survives_the_trip_and_no_flipped_bit(
            length in 0..=u32::try_from(MAX_PAYLOAD).unwrap(), offset: u64, first: u64, count: u32,
            streams in 0..16u8, stored_us: u64, boot: [u8; 16], checksum: u32, salt: u32,
            flip in 0..BATCH_HEADER * 8,
        ) {
            let header = BatchHeader {
                length, offset, first, count, streams, stored_us, boot: Boot(boot), checksum,
            };
            let mut bytes = header.encode(salt);
            prop_assert_eq!(BatchHeader::decode(&bytes, salt, offset), Some(header));
            prop_assert_eq!(BatchHeader::decode(&bytes, salt, offset.wrapping_add(1)), None);
            prop_assert_eq!(BatchHeader::decode(&bytes, salt.wrapping_add(1), offset), None);
            bytes[flip / 8] ^= 1 << (flip % 8);
            prop_assert_eq!(BatchHeader::decode(&bytes, salt, offset), None);
        }

        #[test]
        fn a_segments_header_keeps_what_is_needed(
            first: u64, salt: u32, boots in proptest::collection::vec(any::<([u8; 16], [u64; 4])>(), 0..MAX_BOOTS),
            flip in 0..SEGMENT_HEADER * 8,
        ) {
            let mut positions = Positions::default();
            for (boot, last) in boots {
                positions.set(Boot(boot), last);
            }
            let header = SegmentHeader { first, positions };
            let mut bytes: [u8; SEGMENT_HEADER] = header.encode(salt).try_into().unwrap();
            prop_assert_eq!(SegmentHeader::decode(&bytes, salt), Some(header));
            bytes[flip / 8] ^= 1 << (flip % 8);
            prop_assert_eq!(SegmentHeader::decode(&bytes, salt), None);
        }
    }
}
