//! What a spool's newest segments say when it is opened.

use std::io;
use std::path::Path;

use super::format::take_record;
use super::positions::Positions;
use super::segment::{Segment, SegmentName};

/// What was found when a spool was opened.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Recovery {
    /// Records that the newest segment holds.
    pub records: u64,
    /// Bytes cut off the newest segment's end, because no whole batch was there.
    pub cut_bytes: u64,
    /// Damaged bytes between whole batches of the newest segment.
    pub damaged_bytes: u64,
    /// Records that those held.
    pub damaged_records: u64,
}

impl Recovery {
    /// Whether there is anything to tell.
    pub fn is_clean(&self) -> bool {
        self.cut_bytes == 0 && self.damaged_bytes == 0
    }
}

/// What the newest segments say of the spool's state.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) has_header: bool,
    pub(super) next: u64,
    pub(super) positions: Positions,
    /// The offset behind the last whole batch.
    pub(super) end: u64,
    pub(super) records: u64,
    pub(super) damaged_bytes: u64,
    pub(super) damaged_records: u64,
}

impl Found {
    /// Reads from the newest segment whose header is whole.
    pub(super) fn read(&mut self, directory: &Path, names: &[SegmentName]) -> io::Result<()> {
        let mut start = 0;
        for (index, &name) in names.iter().enumerate().rev() {
            start = index;
            let header = Segment::open(directory, name)?.header()?;
            if index + 1 == names.len() {
                self.has_header = header.is_some();
            }
            if let Some(header) = header {
                self.next = header.first;
                self.positions = header.positions;
                break;
            }
        }
        for &name in names
            .get(start..)
            .expect("the start is one of the names, or their end")
        {
            self.records = 0;
            self.damaged_bytes = 0;
            self.damaged_records = 0;
            self.scan(&Segment::open(directory, name)?)?;
        }
        Ok(())
    }

    fn scan(&mut self, segment: &Segment) -> io::Result<()> {
        let end = segment.end()?;
        let mut payload = Vec::new();
        let mut at = segment.begin();
        self.end = at;
        while at < end {
            let whole = match segment.batch(at, end)? {
                Some(batch) => segment.payload(&batch, &mut payload)?.then_some(batch),
                None => None,
            };
            let Some(batch) = whole else {
                let Some(found) = segment.find(at + 1, end)? else {
                    break;
                };
                self.damaged_bytes += found - at;
                at = found;
                continue;
            };
            if self.records > 0 || self.next > 0 {
                self.damaged_records += batch.first.saturating_sub(self.next);
            }
            let mut last = self.positions.get(batch.boot);
            let mut rest = payload.as_slice();
            while let Some(record) = take_record(&mut rest) {
                if let Some(last) = last.get_mut(record.stream as usize) {
                    *last = (*last).max(record.sequence);
                }
            }
            self.positions.set(batch.boot, last);
            self.records += u64::from(batch.count);
            self.next = batch.end();
            at += batch.size();
            self.end = at;
        }
        Ok(())
    }
}
