//! Reading a spool, also while it is written: from another process, or up to
//! what this one has written.

use std::io;
use std::path::{Path, PathBuf};

use super::format::{BatchHeader, Stored, bit, take_record};
use super::positions::Boot;
use super::segment::{self, Segment};
use link::logs::LogStream;

/// A batch that was read.
#[derive(Debug)]
pub struct Batch {
    /// The boot that its records are of.
    pub boot: Boot,
    /// The number of its first record over the whole spool.
    pub first: u64,
    /// When it was stored, by the agent's clock: microseconds since 1970.
    pub stored_us: u64,
    payload: Vec<u8>,
    /// Where it begins in the spool.
    offset: u64,
    /// Bytes of the records that were taken.
    taken: usize,
    /// The number of the next record.
    next: u64,
}

impl Default for Batch {
    fn default() -> Self {
        Self {
            boot: Boot::AGENT,
            first: 0,
            stored_us: 0,
            payload: Vec::new(),
            offset: 0,
            taken: 0,
            next: 0,
        }
    }
}

impl Batch {
    fn begin(&mut self, header: &BatchHeader) {
        self.boot = header.boot;
        self.first = header.first;
        self.stored_us = header.stored_us;
        self.offset = header.offset;
        self.taken = 0;
        self.next = header.first;
    }

    /// The next record that has not been taken, and its number.
    pub fn peek(&self) -> Option<(u64, Stored<'_>)> {
        let mut rest = self.payload.get(self.taken..)?;
        Some((self.next, take_record(&mut rest)?))
    }

    /// Takes the next record.
    pub fn advance(&mut self) {
        let length = self.payload.len();
        let mut rest = self
            .payload
            .get(self.taken..)
            .expect("no more is taken than there is");
        if take_record(&mut rest).is_some() {
            self.taken = length - rest.len();
            self.next += 1;
        } else {
            self.taken = length;
        }
    }

    /// The place of the next record.
    pub fn cursor(&self) -> Cursor {
        Cursor {
            offset: self.offset,
            record: self.next,
        }
    }

    fn clear(&mut self) {
        self.payload.clear();
        self.taken = 0;
    }
}

/// A place to read from: what has been passed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Cursor {
    /// An offset at or before the next record's batch, where a batch or a
    /// segment begins.
    pub offset: u64,
    /// The number of the next record.
    pub record: u64,
}

/// Records that a reader did not find.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Losses {
    /// Their segment was gone.
    pub removed: u64,
    /// Their batch was damaged.
    pub damaged: u64,
}

/// Reads batches in order.
#[derive(Debug)]
pub struct Reader {
    directory: PathBuf,
    segment: Option<Segment>,
    offset: u64,
    /// The number of the next record, once it is known.
    next: Option<u64>,
    /// The streams that are of interest.
    streams: u8,
    /// Whether bytes were passed over that were not there any more.
    jumped: bool,
    losses: Losses,
}

impl Reader {
    /// Reads everything that a spool holds of `stream`, or of all.
    pub fn oldest(directory: &Path, stream: Option<LogStream>) -> Self {
        Self {
            directory: directory.to_owned(),
            segment: None,
            offset: 0,
            next: None,
            streams: stream.map_or(u8::MAX, bit),
            jumped: false,
            losses: Losses::default(),
        }
    }

    /// Reads the last two segments: what was stored last, in bounded time.
    pub fn newest(directory: &Path) -> io::Result<Self> {
        let names = segment::list(directory)?;
        let offset = match names.as_slice() {
            [.., last_but_one, _] => last_but_one.base,
            _ => 0,
        };
        Ok(Self {
            offset,
            ..Self::oldest(directory, None)
        })
    }

    /// Reads on from a place.
    pub fn at(directory: &Path, stream: Option<LogStream>, cursor: Cursor) -> Self {
        Self {
            offset: cursor.offset,
            next: Some(cursor.record),
            ..Self::oldest(directory, stream)
        }
    }

    /// What has been passed: everything before the next batch.
    pub fn cursor(&self) -> Cursor {
        Cursor {
            offset: self.offset,
            record: self.next.unwrap_or(0),
        }
    }

    /// What was not found since this was last asked.
    pub fn take_losses(&mut self) -> Losses {
        std::mem::take(&mut self.losses)
    }

    /// Reads the next batch that has records of interest, and says whether there
    /// was one. Nothing at or behind the offset `limit` is looked at.
    pub fn read(&mut self, limit: Option<u64>, batch: &mut Batch) -> io::Result<bool> {
        batch.clear();
        loop {
            let Some(segment) = &self.segment else {
                if self.open()? {
                    continue;
                }
                return Ok(false);
            };
            if limit.is_some_and(|limit| self.offset >= limit) {
                return Ok(false);
            }
            let length = segment.end()?;
            let end = limit.map_or(length, |limit| length.min(limit));
            let Some(header) = segment.batch(self.offset, end)? else {
                if self.pass(end, limit)? {
                    continue;
                }
                return Ok(false);
            };
            // What lies behind the cursor, and other streams, need not be read.
            let wanted = header.streams & self.streams != 0
                && self.next.is_none_or(|next| header.end() > next);
            if wanted && !segment.payload(&header, &mut batch.payload)? {
                batch.clear();
                if self.pass(end, limit)? {
                    continue;
                }
                return Ok(false);
            }
            if let Some(next) = self.next {
                let lost = header.first.saturating_sub(next);
                let losses = &mut self.losses;
                *if self.jumped {
                    &mut losses.removed
                } else {
                    &mut losses.damaged
                } += lost;
            }
            self.jumped = false;
            if wanted {
                batch.begin(&header);
                while self.next.is_some_and(|next| batch.next < next) && batch.peek().is_some() {
                    batch.advance();
                }
            }
            self.offset = header.offset + header.size();
            self.next = Some(
                self.next
                    .map_or(header.end(), |next| next.max(header.end())),
            );
            if wanted {
                return Ok(true);
            }
        }
    }

    /// Passes over what is no batch before `end`: damage, or the segment's end.
    /// Says whether there is more to read behind it.
    fn pass(&mut self, end: u64, limit: Option<u64>) -> io::Result<bool> {
        let Some(segment) = &self.segment else {
            return Ok(false);
        };
        if self.offset < end
            && let Some(found) = segment.find(self.offset + 1, end)?
        {
            self.offset = found;
            return Ok(true);
        }
        let base = segment.name.base;
        let later = segment::list(&self.directory)?
            .into_iter()
            .find(|name| name.base > base);
        let Some(later) = later else {
            return Ok(false);
        };
        if limit.is_some_and(|limit| later.base >= limit) {
            return Ok(false);
        }
        // What was appended between the two looks.
        if segment.end()? > end && limit.is_none() {
            return Ok(true);
        }
        self.jumped |= later.base > segment.end()?;
        self.offset = later.base;
        self.segment = None;
        Ok(true)
    }

    /// Opens the segment in which the offset lies, or the first behind it.
    fn open(&mut self) -> io::Result<bool> {
        let names = segment::list(&self.directory)?;
        let within = names.iter().rev().find(|name| name.base <= self.offset);
        let Some(&name) = within.or(names.first()) else {
            return Ok(false);
        };
        match Segment::open(&self.directory, name) {
            Ok(segment) => {
                self.jumped |= self.next.is_some() && name.base > self.offset;
                self.offset = self.offset.max(segment.begin());
                // A repair may have moved the batches: then `next` finds the record.
                let end = segment.end()?;
                if self.offset < end && segment.batch(self.offset, end)?.is_none() {
                    self.offset = segment.begin();
                }
                self.segment = Some(segment);
                Ok(true)
            }
            // It was removed just now: the next one is the oldest.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let later = names.iter().find(|later| later.base > name.base);
                let Some(later) = later else {
                    return Ok(false);
                };
                self.jumped = true;
                self.offset = self.offset.max(later.base);
                Ok(true)
            }
            Err(error) => Err(error),
        }
    }
}
