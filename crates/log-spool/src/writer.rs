//! The one writer of a spool: opens and repairs it, appends, removes what is old.

use std::collections::VecDeque;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use link::logs::LogStream;

use super::chunk::Chunk;
use super::format::{SEGMENT_HEADER, SegmentHeader};
use super::positions::{Boot, Positions, STREAMS};
use super::recovery::{Found, Recovery};
use super::segment::{self, SegmentName};
use super::{Fsync, SpoolError, SpoolOptions, WhenFull, now_us};

const LOCK: &str = "lock";
/// Bytes of a segment before the next one begins; less where the cap is small.
const SEGMENT_BYTES: u64 = 16 * 1024 * 1024;
/// Segments that a spool has at its cap, at least.
const MIN_SEGMENTS: u64 = 8;
/// Bytes below the cap that only the agent's own records may take: what it says of a
/// spool that is full, and of what that has cost, is said in the spool too. Less where
/// the cap is small.
const OWN_BYTES: u64 = 256 * 1024;
const OWN_SHARE: u64 = 64;

/// Why records were not stored.
#[derive(Debug)]
pub(super) enum AppendError {
    /// The spool is at its cap, and a sink needs its oldest records.
    Full,
    /// The file system refused.
    Io(io::Error),
    /// The spool takes nothing more.
    Closed,
}

impl From<io::Error> for AppendError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Records that were not stored, to be tried again.
#[derive(Debug)]
pub(super) struct Unappended {
    pub(super) chunk: Chunk,
    pub(super) error: AppendError,
}

#[derive(Debug)]
pub(super) struct Writer {
    directory: PathBuf,
    options: SpoolOptions,
    /// Oldest first; the last is being written.
    segments: VecDeque<Stock>,
    pub(super) file: File,
    /// The number of the next record.
    next: u64,
    positions: Positions,
    /// What [`Fsync::Interval`] has still to bring to the disk: files that are
    /// not written any more and, if set, the one that is.
    retired: Vec<File>,
    dirty: bool,
    /// Held (flock) for as long as this lives.
    _lock: File,
}

#[derive(Debug)]
struct Stock {
    name: SegmentName,
    bytes: u64,
    changed: SystemTime,
}

impl Stock {
    fn end(&self) -> u64 {
        self.name.base + self.bytes
    }
}

/// What an appended chunk has changed.
#[derive(Debug)]
pub(super) struct Appended {
    pub(super) held: [u64; STREAMS],
    pub(super) records: u64,
    pub(super) missing: u64,
}

impl Writer {
    pub(super) fn open(
        directory: &Path,
        options: SpoolOptions,
    ) -> Result<(Self, Recovery), SpoolError> {
        let failed = SpoolError::io(directory);
        DirBuilder::new()
            .mode(0o700)
            .recursive(true)
            .create(directory)
            .map_err(&failed)?;
        let lock = lock(directory)?;
        let names = segment::list(directory).map_err(&failed)?;
        let mut segments = VecDeque::new();
        for &name in &names {
            let file = fs::metadata(directory.join(name.file_name())).map_err(&failed)?;
            segments.push_back(Stock {
                name,
                bytes: file.len(),
                changed: file.modified().map_err(&failed)?,
            });
        }
        let Some(last) = segments.back_mut() else {
            let positions = Positions::default();
            let (stock, file) = create(directory, 0, 0, &positions, &options).map_err(&failed)?;
            segments.push_back(stock);
            let writer = Self {
                directory: directory.to_owned(),
                options,
                segments,
                file,
                next: 0,
                positions,
                retired: Vec::new(),
                dirty: true,
                _lock: lock,
            };
            return Ok((writer, Recovery::default()));
        };
        let mut found = Found::default();
        found.read(directory, &names).map_err(&failed)?;
        let is_empty = !found.has_header && found.records == 0;
        let kept = if is_empty {
            0
        } else {
            found.end.saturating_sub(last.name.base)
        };
        let cut_bytes = last.bytes.saturating_sub(kept);
        let path = directory.join(last.name.file_name());
        let file = if is_empty {
            // Not even its header was finished: it is made anew.
            let base = last.name.base;
            fs::remove_file(&path).map_err(&failed)?;
            segments.pop_back();
            let (stock, file) =
                create(directory, base, found.next, &found.positions, &options).map_err(&failed)?;
            segments.push_back(stock);
            file
        } else {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .open(&path)
                .map_err(&failed)?;
            if cut_bytes > 0 {
                file.set_len(kept).map_err(&failed)?;
                last.bytes = kept;
            }
            file
        };
        let mut writer = Self {
            directory: directory.to_owned(),
            options,
            segments,
            file,
            next: found.next,
            positions: found.positions,
            retired: Vec::new(),
            dirty: true,
            _lock: lock,
        };
        if !found.has_header && !is_empty {
            // Whoever opens the spool next must not miss it again.
            writer.roll().map_err(&failed)?;
        }
        let recovery = Recovery {
            records: found.records,
            cut_bytes,
            damaged_bytes: found.damaged_bytes,
            damaged_records: found.damaged_records,
        };
        Ok((writer, recovery))
    }

    /// The offset behind the last batch.
    pub(super) fn end(&self) -> u64 {
        self.segments.back().map_or(0, Stock::end)
    }

    /// The number of the next record.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    pub(super) fn positions(&self) -> &Positions {
        &self.positions
    }

    pub(super) fn segments(&self) -> usize {
        self.segments.len()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.segments.iter().map(|stock| stock.bytes).sum()
    }

    /// Appends the records that are not held yet. Sinks need what is at `floor`
    /// or behind.
    pub(super) fn append(&mut self, chunk: Chunk, floor: u64) -> Result<Appended, Box<Unappended>> {
        let held = self.positions.get(chunk.boot);
        let mut chunk = chunk.beyond(held);
        if chunk.is_empty() {
            return Ok(Appended {
                held,
                records: 0,
                missing: 0,
            });
        }
        match self.write(&mut chunk, floor) {
            Ok(()) => {}
            Err(error) => return Err(Box::new(Unappended { chunk, error })),
        }
        let (last, missing) = chunk.advance(held);
        self.positions.set(chunk.boot, last);
        Ok(Appended {
            held: last,
            records: chunk.count().into(),
            missing,
        })
    }

    /// Appends a record of the agent's own.
    pub(super) fn note(
        &mut self,
        stream: LogStream,
        text: &[u8],
        floor: u64,
    ) -> Result<Appended, AppendError> {
        let held = self.positions.get(Boot::AGENT);
        let last = *held.get(stream as usize).expect("a number for each stream");
        let chunk = Chunk::own(stream, last + 1, now_us(), text);
        self.append(chunk, floor).map_err(|refused| refused.error)
    }

    fn write(&mut self, chunk: &mut Chunk, floor: u64) -> Result<(), AppendError> {
        let size = chunk.size();
        let full = self
            .segments
            .back()
            .is_some_and(|stock| stock.bytes + size > self.segment_bytes());
        let reserved = match chunk.boot {
            Boot::AGENT => 0,
            _ => OWN_BYTES.min(self.options.max_bytes / OWN_SHARE),
        };
        let header = if full { SEGMENT_HEADER as u64 } else { 0 };
        self.make_room(size + header + reserved, floor)?;
        if full {
            self.roll()?;
        }
        let (offset, first) = (self.end(), self.next);
        let Some(stock) = self.segments.back_mut() else {
            return Err(AppendError::Full);
        };
        let place = stock.bytes;
        let bytes = chunk.finish(stock.name.salt, offset, first, now_us());
        let mut written = self.file.write_all_at(bytes, place);
        if written.is_ok() && self.options.fsync == Fsync::Always {
            written = self.file.sync_data();
        }
        if let Err(error) = written {
            // If this fails too, the next batch overwrites what is there.
            let _ = self.file.set_len(place);
            return Err(error.into());
        }
        stock.bytes += size;
        stock.changed = SystemTime::now();
        self.next += u64::from(chunk.count());
        self.dirty = true;
        Ok(())
    }

    fn segment_bytes(&self) -> u64 {
        SEGMENT_BYTES.min(self.options.max_bytes / MIN_SEGMENTS)
    }

    /// Removes old segments until so many bytes fit below the cap.
    fn make_room(&mut self, bytes: u64, floor: u64) -> Result<(), AppendError> {
        while self.bytes() + bytes > self.options.max_bytes {
            let may = self.options.when_full == WhenFull::DropOldest;
            if !self.remove_oldest(|stock| may || stock.end() <= floor)? {
                return Err(AppendError::Full);
            }
        }
        Ok(())
    }

    /// Removes the segments that every sink has passed and that are too old.
    pub(super) fn expire(&mut self, floor: u64) -> io::Result<()> {
        let now = SystemTime::now();
        let max_age = self.options.max_age;
        let is_old = |changed| now.duration_since(changed).unwrap_or(Duration::ZERO) > max_age;
        while self.remove_oldest(|stock| stock.end() <= floor && is_old(stock.changed))? {}
        Ok(())
    }

    /// Removes the oldest segment, unless it is the one being written.
    fn remove_oldest(&mut self, may: impl Fn(&Stock) -> bool) -> io::Result<bool> {
        if self.segments.len() < 2 || !self.segments.front().is_some_and(may) {
            return Ok(false);
        }
        if let Some(stock) = self.segments.front() {
            match fs::remove_file(self.directory.join(stock.name.file_name())) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.segments.pop_front();
        Ok(true)
    }

    /// Begins the next segment.
    fn roll(&mut self) -> io::Result<()> {
        let (stock, file) = create(
            &self.directory,
            self.end(),
            self.next,
            &self.positions,
            &self.options,
        )?;
        self.segments.push_back(stock);
        let before = std::mem::replace(&mut self.file, file);
        if self.options.fsync == Fsync::Interval {
            self.retired.push(before);
            self.retired.push(File::open(&self.directory)?);
            self.dirty = true;
        }
        Ok(())
    }

    /// The files to bring to the disk by now. Writing goes on meanwhile.
    pub(super) fn unsynced(&mut self) -> io::Result<Vec<File>> {
        if self.options.fsync != Fsync::Interval {
            return Ok(Vec::new());
        }
        let mut files = std::mem::take(&mut self.retired);
        if std::mem::take(&mut self.dirty) {
            files.push(self.file.try_clone()?);
        }
        Ok(files)
    }

    /// Takes back files that could not be brought to the disk.
    pub(super) fn still_unsynced(&mut self, files: Vec<File>) {
        self.retired.extend(files);
    }
}

fn create(
    directory: &Path,
    base: u64,
    first: u64,
    positions: &Positions,
    options: &SpoolOptions,
) -> io::Result<(Stock, File)> {
    let name = SegmentName {
        base,
        salt: fastrand::u32(..),
    };
    let path = directory.join(name.file_name());
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)?;
    let header = SegmentHeader {
        first,
        positions: positions.clone(),
    };
    let written = file
        .write_all_at(&header.encode(name.salt), 0)
        .and_then(|()| match options.fsync {
            Fsync::Never | Fsync::Interval => Ok(()),
            Fsync::Always => {
                file.sync_data()?;
                File::open(directory)?.sync_data()
            }
        });
    if let Err(error) = written {
        let _ = fs::remove_file(&path);
        return Err(error);
    }
    let stock = Stock {
        name,
        bytes: SEGMENT_HEADER as u64,
        changed: SystemTime::now(),
    };
    Ok((stock, file))
}

fn lock(directory: &Path) -> Result<File, SpoolError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(directory.join(LOCK))
        .map_err(SpoolError::io(directory))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(SpoolError::InUse(directory.to_owned())),
        Err(TryLockError::Error(error)) => Err(SpoolError::io(directory)(error)),
    }
}
