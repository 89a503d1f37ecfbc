//! Log records on disk, from when the enclave hands them over until every sink
//! has passed them on, and beyond that for `parent-agent logs`.
//!
//! A spool is a folder of one enclave name, outliving enclave and agent: segment
//! files that are only appended to, a cursor file for each sink, and a lock. A
//! record is in it exactly once: how far each stream of each boot has come is
//! part of what is stored.
//!
//! [`Spool`] is the writer's side, one in a folder at a time; [`Reader`] reads the
//! same files, in any process.

#![forbid(unsafe_code)]

mod chunk;
mod cursor;
mod format;
mod last_lines;
mod line;
pub mod location;
mod options;
mod positions;
mod reader;
mod recovery;
mod segment;
mod writer;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use link::logs::{LogStream, Record};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tracing::{error, info, warn};

pub use format::{Source, Stored};
pub use last_lines::{LastLines, last_lines};
pub use line::{log_line, timestamp};
pub use options::{Fsync, MIN_BYTES, SpoolOptions, WhenFull};
pub use positions::Boot;
pub use reader::{Batch, Cursor, Losses, Reader};
pub use recovery::Recovery;

use chunk::Chunk;
use positions::Positions;
use writer::{AppendError, Appended, Unappended, Writer};

/// How often what was appended is brought to the disk under [`Fsync::Interval`].
const SYNC_INTERVAL: Duration = Duration::from_secs(1);
/// How long to wait before an append is tried again.
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// Why a spool cannot be opened.
#[derive(Debug, Error)]
pub enum SpoolError {
    /// Another agent has it.
    #[error(
        "the log spool {} is in use by another agent: stop that one, or choose another --log-dir", .0.display()
    )]
    InUse(PathBuf),
    /// The file system refused.
    #[error("the log spool {} cannot be used: {source}; choose another --log-dir", path.display())]
    Io {
        /// The spool's folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl SpoolError {
    fn io(path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| Self::Io {
            path: path.to_owned(),
            source,
        }
    }
}

/// How far the spool has been written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The offset behind the last batch.
    pub offset: u64,
    /// The number of the next record.
    pub record: u64,
}

/// A moment's reading of a spool.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpoolStatus {
    /// Its folder.
    pub directory: PathBuf,
    /// Bytes on disk.
    pub bytes: u64,
    /// Most bytes on disk.
    pub max_bytes: u64,
    /// Files.
    pub segments: u64,
    /// Whether it takes nothing because it is at its cap.
    pub full: bool,
    /// Why it takes nothing, if the file system refuses.
    pub error: Option<String>,
    /// Appends that the file system refused.
    pub errors: u64,
    /// Times that it was at its cap.
    pub times_full: u64,
    /// The agent's own records that found no room.
    pub own_dropped: u64,
}

/// A spool that this process writes.
#[derive(Debug)]
pub struct Spool {
    directory: PathBuf,
    options: SpoolOptions,
    /// Locked by blocking threads only.
    writer: Mutex<Writer>,
    held: Mutex<Positions>,
    progress: watch::Sender<Progress>,
    /// What the sinks have passed for good, by their names.
    floors: Mutex<BTreeMap<String, u64>>,
    /// A floor was raised.
    room: Notify,
    counts: Counts,
    trouble: Mutex<Option<String>>,
    /// Set once nothing may be added any more; changed with the writer locked.
    closed: AtomicBool,
}

#[derive(Debug, Default)]
struct Counts {
    records: AtomicU64,
    missing: AtomicU64,
    bytes: AtomicU64,
    segments: AtomicU64,
    full: AtomicBool,
    times_full: AtomicU64,
    errors: AtomicU64,
    own_dropped: AtomicU64,
}

impl Spool {
    /// Opens or makes a spool, and repairs it.
    pub fn open(
        directory: &Path,
        options: SpoolOptions,
    ) -> Result<(Arc<Self>, Recovery), SpoolError> {
        let directory =
            std::path::absolute(directory).map_err(|source| SpoolError::io(directory)(source))?;
        let (writer, recovery) = Writer::open(&directory, options)?;
        let progress = Progress {
            offset: writer.end(),
            record: writer.next(),
        };
        let spool = Self {
            held: Mutex::new(writer.positions().clone()),
            writer: Mutex::new(writer),
            progress: watch::Sender::new(progress),
            floors: Mutex::default(),
            room: Notify::new(),
            counts: Counts::default(),
            trouble: Mutex::default(),
            closed: AtomicBool::new(false),
            options,
            directory,
        };
        spool.measure(&spool.writer());
        spool
            .clamp_cursors(progress)
            .map_err(SpoolError::io(&spool.directory))?;
        Ok((Arc::new(spool), recovery))
    }

    /// A repair may have taken records that a sink had passed on already. Their
    /// numbers are given again.
    fn clamp_cursors(&self, end: Progress) -> io::Result<()> {
        for path in cursor::list(&self.directory)? {
            if let Ok(Some(cursor)) = cursor::load(&path)
                && (cursor.offset > end.offset || cursor.record > end.record)
            {
                let end = Cursor {
                    offset: end.offset,
                    record: end.record,
                };
                cursor::store(&path, end)?;
            }
        }
        Ok(())
    }

    /// Its folder.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// How far it has been written, now and later.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// The last number held of each stream that has any.
    pub fn held(&self, boot: Boot) -> Vec<(LogStream, u64)> {
        let last = lock(&self.held).get(boot);
        LogStream::ALL
            .into_iter()
            .zip(last)
            .filter(|&(_, last)| last > 0)
            .collect()
    }

    /// Records stored, and numbers left out, since the spool was opened.
    pub fn counts(&self) -> (u64, u64) {
        (
            self.counts.records.load(Ordering::Relaxed),
            self.counts.missing.load(Ordering::Relaxed),
        )
    }

    /// What it is like.
    pub fn status(&self) -> SpoolStatus {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        SpoolStatus {
            directory: self.directory.clone(),
            bytes: read(&self.counts.bytes),
            max_bytes: self.options.max_bytes,
            segments: read(&self.counts.segments),
            full: self.counts.full.load(Ordering::Relaxed),
            error: lock(&self.trouble).clone(),
            errors: read(&self.counts.errors),
            times_full: read(&self.counts.times_full),
            own_dropped: read(&self.counts.own_dropped),
        }
    }

    /// Stores the records that are not held yet, and says how many numbers the
    /// enclave has left out before them. Returns when they are held, be it that the
    /// disk was full for hours; a caller that gives up loses nothing.
    pub async fn store(self: &Arc<Self>, boot: Boot, records: &[Record<'_>]) -> u64 {
        let held = lock(&self.held).get(boot);
        let mut missing = 0_u64;
        for chunk in chunk::encode(boot, held, records) {
            missing = missing.saturating_add(self.store_chunk(chunk).await);
        }
        missing
    }

    async fn store_chunk(self: &Arc<Self>, mut chunk: Chunk) -> u64 {
        let mut refused = false;
        loop {
            let mut room = std::pin::pin!(self.room.notified());
            room.as_mut().enable();
            let spool = Arc::clone(self);
            let appended = tokio::task::spawn_blocking(move || spool.append(chunk)).await;
            let error = match appended {
                Ok(Ok(missing)) => {
                    if refused {
                        info!("the log spool takes records again");
                    }
                    return missing;
                }
                Ok(Err(refused)) => {
                    chunk = refused.chunk;
                    refused.error
                }
                // The runtime ends.
                Err(_) => return 0,
            };
            match error {
                AppendError::Full if !refused => warn!(
                    "the log spool {} is full: the enclave keeps its records until a sink has passed the oldest on",
                    self.directory.display()
                ),
                AppendError::Io(error) if !refused => error!(
                    %error,
                    "the log spool {} cannot be written: the enclave keeps its records",
                    self.directory.display()
                ),
                AppendError::Closed => return 0,
                AppendError::Full | AppendError::Io(_) => {}
            }
            refused = true;
            let _ = timeout(RETRY_DELAY, room).await;
        }
    }

    fn append(&self, chunk: Chunk) -> Result<u64, Box<Unappended>> {
        let boot = chunk.boot;
        let mut writer = self.writer();
        if self.closed.load(Ordering::Relaxed) {
            let error = AppendError::Closed;
            return Err(Box::new(Unappended { chunk, error }));
        }
        let result = match writer.append(chunk, self.floor()) {
            Ok(appended) => {
                self.publish(&writer, boot, &appended);
                Ok(appended.missing)
            }
            Err(refused) => {
                self.refuse(&refused.error);
                Err(refused)
            }
        };
        self.measure(&writer);
        result
    }

    /// Adds a record of the agent's own, unless there is no room even for that; says
    /// whether it did.
    pub async fn note(self: &Arc<Self>, stream: LogStream, text: String) -> bool {
        let spool = Arc::clone(self);
        let noted = move || {
            let mut writer = spool.writer();
            let appended = writer.note(stream, text.as_bytes(), spool.floor());
            if let Ok(appended) = &appended {
                spool.publish(&writer, Boot::AGENT, appended);
            } else {
                spool.counts.own_dropped.fetch_add(1, Ordering::Relaxed);
            }
            spool.measure(&writer);
            appended.is_ok()
        };
        // It fails only when the runtime ends.
        tokio::task::spawn_blocking(noted).await.unwrap_or(false)
    }

    fn publish(&self, writer: &Writer, boot: Boot, appended: &Appended) {
        lock(&self.trouble).take();
        lock(&self.held).set(boot, appended.held);
        // For records of the agent's own there is room when it is full for others.
        if boot != Boot::AGENT {
            self.counts.full.store(false, Ordering::Relaxed);
            self.counts
                .records
                .fetch_add(appended.records, Ordering::Relaxed);
            // The numbers are the enclave's. Only who holds the writer adds.
            let missing = self.counts.missing.load(Ordering::Relaxed);
            self.counts
                .missing
                .store(missing.saturating_add(appended.missing), Ordering::Relaxed);
        }
        self.progress.send_replace(Progress {
            offset: writer.end(),
            record: writer.next(),
        });
    }

    fn refuse(&self, error: &AppendError) {
        match error {
            AppendError::Full => {
                if !self.counts.full.swap(true, Ordering::Relaxed) {
                    self.counts.times_full.fetch_add(1, Ordering::Relaxed);
                }
            }
            AppendError::Closed => {}
            AppendError::Io(error) => {
                self.counts.errors.fetch_add(1, Ordering::Relaxed);
                *lock(&self.trouble) = Some(error.to_string());
            }
        }
    }

    fn measure(&self, writer: &Writer) {
        self.counts.bytes.store(writer.bytes(), Ordering::Relaxed);
        self.counts
            .segments
            .store(writer.segments() as u64, Ordering::Relaxed);
    }

    /// A sink's place: where it left off, or the spool's end for a new one. An
    /// unreadable place is the spool's beginning: twice is better than never.
    pub fn cursor(&self, sink: &str) -> Cursor {
        let progress = *self.progress.borrow();
        let cursor = match cursor::load(&cursor::path(&self.directory, sink)) {
            Ok(Some(cursor)) => cursor,
            Ok(None) => {
                let end = Cursor {
                    offset: progress.offset,
                    record: progress.record,
                };
                self.save_cursor(sink, end);
                end
            }
            Err(error) => {
                warn!(%error, sink, "the sink's place in the log spool is unreadable: it begins with the oldest record");
                Cursor::default()
            }
        };
        lock(&self.floors).insert(sink.to_owned(), cursor.offset);
        cursor
    }

    /// Remembers for good what a sink has passed on. Blocks on the disk.
    pub fn save_cursor(&self, sink: &str, cursor: Cursor) -> bool {
        if let Err(error) = cursor::store(&cursor::path(&self.directory, sink), cursor) {
            warn!(%error, sink, "the sink's place in the log spool cannot be written: it may pass records on twice");
            return false;
        }
        let raised = lock(&self.floors).insert(sink.to_owned(), cursor.offset);
        if raised.is_none_or(|before| before < cursor.offset) {
            self.room.notify_waiters();
        }
        true
    }

    /// The offset that some sink still needs.
    fn floor(&self) -> u64 {
        lock(&self.floors)
            .values()
            .copied()
            .min()
            .unwrap_or(u64::MAX)
    }

    /// Brings records to the disk and removes old ones, until the future is dropped.
    pub async fn maintain(self: Arc<Self>) {
        loop {
            sleep(SYNC_INTERVAL).await;
            let spool = Arc::clone(&self);
            if tokio::task::spawn_blocking(move || spool.tend())
                .await
                .is_err()
            {
                return;
            }
        }
    }

    fn tend(&self) {
        let (files, removed) = {
            let mut writer = self.writer();
            let floor = self.floor();
            let removed = writer.expire(floor);
            self.measure(&writer);
            (writer.unsynced(), removed)
        };
        // Without the lock: records are appended meanwhile.
        let synced = files.and_then(|files| {
            let synced = files.iter().try_for_each(File::sync_data);
            if synced.is_err() {
                self.writer().still_unsynced(files);
            }
            synced
        });
        if let Err(error) = removed.and(synced) {
            self.counts.errors.fetch_add(1, Ordering::Relaxed);
            if lock(&self.trouble).replace(error.to_string()).is_none() {
                error!(%error, "the log spool {} cannot be brought to the disk", self.directory.display());
            }
        }
    }

    /// Takes no more of the enclave's records, and brings everything to the disk:
    /// what is held now is all that is held.
    pub async fn close(self: Arc<Self>) {
        let closing = move || {
            let writer = self.writer();
            self.closed.store(true, Ordering::Relaxed);
            drop(writer);
            self.tend();
        };
        // It fails only when the runtime ends.
        let _ = tokio::task::spawn_blocking(closing).await;
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        lock(&self.writer)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Microseconds since 1970, by this machine's clock.
pub fn now_us() -> u64 {
    let elapsed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)
}
