//! One file of the spool, and how batches are found in it.
//!
//! A place in the spool is an offset over all its segments. A segment's file is
//! named after the offset of its first byte and its salt.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::format::{
    BATCH_HEADER, BATCH_MAGIC, BatchHeader, SEGMENT_HEADER, SegmentHeader, checksum,
};

const SUFFIX: &str = ".log";
/// Bytes searched at a time for a batch behind damage.
const SEARCH_BYTES: usize = 64 * 1024;
/// Bytes that may be summed in one search: what looks like a batch costs time.
const SEARCH_BUDGET: u64 = 64 * 1024 * 1024;

/// What a segment's file name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SegmentName {
    /// The offset of its first byte.
    pub(super) base: u64,
    /// What its checksums begin with.
    pub(super) salt: u32,
}

impl SegmentName {
    pub(super) fn file_name(self) -> String {
        format!("{:016x}-{:08x}{SUFFIX}", self.base, self.salt)
    }

    fn parse(name: &str) -> Option<Self> {
        let (base, salt) = name.strip_suffix(SUFFIX)?.split_once('-')?;
        let parsed = Self {
            base: u64::from_str_radix(base, 16).ok()?,
            salt: u32::from_str_radix(salt, 16).ok()?,
        };
        (parsed.file_name() == name).then_some(parsed)
    }
}

/// The segments in a folder, oldest first.
pub(super) fn list(directory: &Path) -> io::Result<Vec<SegmentName>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        names.extend(entry?.file_name().to_str().and_then(SegmentName::parse));
    }
    names.sort_unstable();
    Ok(names)
}

/// A segment that is open for reading.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) name: SegmentName,
    pub(super) file: File,
}

impl Segment {
    pub(super) fn open(directory: &Path, name: SegmentName) -> io::Result<Self> {
        let file = File::open(directory.join(name.file_name()))?;
        Ok(Self { name, file })
    }

    /// The offset behind its last byte.
    pub(super) fn end(&self) -> io::Result<u64> {
        Ok(self.name.base.saturating_add(self.file.metadata()?.len()))
    }

    /// The offset of its first batch.
    pub(super) fn begin(&self) -> u64 {
        self.name.base + SEGMENT_HEADER as u64
    }

    /// Its header, if that is whole.
    pub(super) fn header(&self) -> io::Result<Option<SegmentHeader>> {
        let mut header = [0; SEGMENT_HEADER];
        if !self.read(&mut header, self.name.base)? {
            return Ok(None);
        }
        Ok(SegmentHeader::decode(&header, self.name.salt))
    }

    /// The header of the batch at `offset`, if a batch begins and ends there
    /// before `end`.
    pub(super) fn batch(&self, offset: u64, end: u64) -> io::Result<Option<BatchHeader>> {
        let mut header = [0; BATCH_HEADER];
        if !self.read(&mut header, offset)? {
            return Ok(None);
        }
        Ok(BatchHeader::decode(&header, self.name.salt, offset)
            .filter(|batch| offset.saturating_add(batch.size()) <= end))
    }

    /// Reads a batch's records, and says whether they are whole.
    pub(super) fn payload(&self, batch: &BatchHeader, payload: &mut Vec<u8>) -> io::Result<bool> {
        payload.resize(batch.length as usize, 0);
        Ok(self.read(payload, batch.offset + BATCH_HEADER as u64)?
            && checksum(self.name.salt, payload) == batch.checksum)
    }

    /// The offset of the first whole batch that begins in `from..end`.
    pub(super) fn find(&self, from: u64, end: u64) -> io::Result<Option<u64>> {
        let mut window = vec![0; SEARCH_BYTES];
        let mut payload = Vec::new();
        let mut budget = SEARCH_BUDGET;
        let mut at = from;
        while at < end {
            let wanted =
                usize::try_from(end - at).map_or(SEARCH_BYTES, |left| left.min(SEARCH_BYTES));
            window.truncate(wanted);
            if !self.read(&mut window, at)? {
                return Ok(None);
            }
            for (place, _) in window
                .windows(BATCH_MAGIC.len())
                .enumerate()
                .filter(|(_, bytes)| *bytes == BATCH_MAGIC)
            {
                let offset = at + place as u64;
                let Some(batch) = self.batch(offset, end)? else {
                    continue;
                };
                budget = match budget.checked_sub(batch.size()) {
                    Some(budget) => budget,
                    None => return Ok(None),
                };
                if self.payload(&batch, &mut payload)? {
                    return Ok(Some(offset));
                }
            }
            // The magic may lie across two windows.
            at += (wanted.saturating_sub(BATCH_MAGIC.len() - 1)).max(1) as u64;
        }
        Ok(None)
    }

    /// Fills `bytes` from `offset`, and says whether there were so many.
    fn read(&self, bytes: &mut [u8], offset: u64) -> io::Result<bool> {
        let Some(offset) = offset.checked_sub(self.name.base) else {
            return Ok(false);
        };
        match self.file.read_exact_at(bytes, offset) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_exact() {
        let name = SegmentName {
            base: 0x1234,
            salt: 0xff,
        };
        assert_eq!(name.file_name(), "0000000000001234-000000ff.log");
        assert_eq!(SegmentName::parse(&name.file_name()), Some(name));
        for other in [
            "lock",
            "0-0.log",
            "0000000000001234-000000FF.log",
            "+000000000001234-000000ff.log",
            "0000000000001234-000000ff.log.new",
        ] {
            assert_eq!(SegmentName::parse(other), None, "{other}");
        }
    }
}
