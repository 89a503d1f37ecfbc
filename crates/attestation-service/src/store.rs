//! Which challenges have been used, on disk.
//!
//! One thread writes. All requests that wait for it share a transaction, so that
//! their number does not multiply the disk's latency. A challenge is recorded
//! before the answer leaves, and forgotten when it has expired.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use redb::{Database, DatabaseError, ReadableDatabase, TableDefinition};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};
use tracing::error;

use crate::challenges::ChallengeId;
use crate::clock;

/// Uses that may wait for the disk; further ones are refused.
const MAX_WAITING: usize = 1024;
/// Memory for pages of the file, in bytes: some hundred thousand used challenges.
const CACHE: usize = 8 * 1024 * 1024;
/// How often expired challenges are forgotten.
const PRUNE_EVERY: Duration = Duration::from_secs(10);

/// Used challenges, those that expire first in front.
const USED: TableDefinition<'_, [u8; 24], ()> = TableDefinition::new("used");
/// Up to when, in milliseconds since 1970, used challenges have been forgotten:
/// one that expired before may have been used, whatever the clock says now.
const FORGOTTEN: TableDefinition<'_, (), u64> = TableDefinition::new("forgotten");

/// Why the store cannot be opened.
#[derive(Debug, Error)]
pub enum StoreError {
    /// Another process has it.
    #[error("{path} is in use: each `attest serve` needs a data folder of its own")]
    InUse {
        /// The file.
        path: String,
    },
    /// It cannot be used.
    #[error("{path}: {error}")]
    Database {
        /// The file.
        path: String,
        /// Why.
        error: Box<redb::Error>,
    },
    /// There is no thread for it.
    #[error("no thread can be started: {0}")]
    Thread(#[from] std::io::Error),
}

/// What became of an attempt to use a challenge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// It was open, and is used now.
    First,
    /// It had been used.
    Again,
    /// It is so old that nobody knows.
    Forgotten,
}

/// Why a use was not recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UseError {
    /// Too many wait.
    Full,
    /// The disk failed.
    Failed,
}

struct Attempt {
    /// None only asks whether the disk can be written.
    id: Option<ChallengeId>,
    reply: oneshot::Sender<Result<Use, UseError>>,
}

/// The store.
#[derive(Debug)]
pub(crate) struct Store {
    /// None after [`close`](Self::close).
    attempts: Option<mpsc::Sender<Attempt>>,
    writer: Option<JoinHandle<()>>,
    healthy: Arc<AtomicBool>,
}

impl Store {
    /// Opens the file, makes it if need be, and starts the writer.
    pub(crate) fn open(file: &Path) -> Result<Self, StoreError> {
        let path = file.to_owned();
        let mut writer = Writer::new(move || {
            let mut builder = Database::builder();
            builder.set_cache_size(CACHE).create(&path)
        });
        writer.open().map_err(|error| match error {
            redb::Error::DatabaseAlreadyOpen => StoreError::InUse {
                path: file.display().to_string(),
            },
            error => StoreError::Database {
                path: file.display().to_string(),
                error: Box::new(error),
            },
        })?;
        Self::start(writer)
    }

    fn start(mut writer: Writer) -> Result<Self, StoreError> {
        let (attempts, mut waiting) = mpsc::channel::<Attempt>(MAX_WAITING);
        let healthy = Arc::new(AtomicBool::new(true));
        let health = healthy.clone();
        let writer = thread::Builder::new()
            .name("challenges".to_owned())
            .spawn(move || {
                let mut batch = Vec::new();
                while waiting.blocking_recv_many(&mut batch, MAX_WAITING) > 0 {
                    let result = writer.write(&batch);
                    health.store(result.is_ok(), Ordering::Relaxed);
                    match result {
                        Ok(uses) => reply(&mut batch, uses.into_iter().map(Ok)),
                        Err(error) => {
                            error!(%error, "used challenges could not be recorded");
                            reply(&mut batch, std::iter::repeat(Err(UseError::Failed)));
                        }
                    }
                }
            })?;
        Ok(Self {
            attempts: Some(attempts),
            writer: Some(writer),
            healthy,
        })
    }

    /// Uses a challenge: whoever comes first has it, for good.
    pub(crate) async fn r#use(&self, id: ChallengeId) -> Result<Use, UseError> {
        self.attempt(Some(id)).await
    }

    /// Whether challenges can be recorded: the last write succeeded, or one does
    /// now.
    pub(crate) async fn is_ready(&self) -> bool {
        self.is_healthy() || self.attempt(None).await.is_ok()
    }

    async fn attempt(&self, id: Option<ChallengeId>) -> Result<Use, UseError> {
        let Some(attempts) = &self.attempts else {
            return Err(UseError::Failed);
        };
        let (reply, answer) = oneshot::channel();
        attempts
            .try_send(Attempt { id, reply })
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => UseError::Full,
                mpsc::error::TrySendError::Closed(_) => UseError::Failed,
            })?;
        answer.await.unwrap_or(Err(UseError::Failed))
    }

    /// Whether the last write succeeded.
    pub(crate) fn is_healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
    }
}

/// Ends the writer when it has written what waits.
impl Drop for Store {
    fn drop(&mut self) {
        self.attempts = None;
        if let Some(writer) = self.writer.take() {
            // A panic has been reported by the thread itself.
            let _ = writer.join();
        }
    }
}

type Opener = Box<dyn FnMut() -> Result<Database, DatabaseError> + Send>;

struct Writer {
    opener: Opener,
    /// None after a failure: a database that has failed once works no more until
    /// it is opened again.
    database: Option<Database>,
    forgotten_ms: u64,
    pruned: Instant,
}

impl Writer {
    fn new(opener: impl FnMut() -> Result<Database, DatabaseError> + Send + 'static) -> Self {
        Self {
            opener: Box::new(opener),
            database: None,
            forgotten_ms: 0,
            pruned: Instant::now(),
        }
    }

    fn open(&mut self) -> Result<(), redb::Error> {
        let database = (self.opener)()?;
        self.forgotten_ms = prepare(&database)?;
        self.database = Some(database);
        Ok(())
    }

    /// What became of each attempt, once that is on the disk.
    fn write(&mut self, batch: &[Attempt]) -> Result<Vec<Use>, redb::Error> {
        if self.database.is_none() {
            self.open()?;
        }
        self.try_write(batch).inspect_err(|_| self.database = None)
    }

    fn try_write(&mut self, batch: &[Attempt]) -> Result<Vec<Use>, redb::Error> {
        let Some(database) = &self.database else {
            return Ok(Vec::new());
        };
        let mut uses = Vec::with_capacity(batch.len());
        let prune = self.pruned.elapsed() >= PRUNE_EVERY;
        let forget_ms = clock::now_ms().max(self.forgotten_ms);
        let transaction = database.begin_write()?;
        {
            let mut table = transaction.open_table(USED)?;
            for attempt in batch {
                let Some(id) = attempt.id else {
                    uses.push(Use::Again);
                    continue;
                };
                uses.push(if id.0 < ChallengeId::first_of(self.forgotten_ms).0 {
                    Use::Forgotten
                } else if table.insert(id.0, ())?.is_some() {
                    Use::Again
                } else {
                    Use::First
                });
            }
            if prune {
                let first = ChallengeId::first_of(forget_ms).0;
                table.retain_in(..first, |_, ()| false)?;
                transaction.open_table(FORGOTTEN)?.insert((), forget_ms)?;
            }
        }
        transaction.commit()?;
        if prune {
            self.forgotten_ms = forget_ms;
            self.pruned = Instant::now();
        }
        Ok(uses)
    }
}

/// Makes the tables; gives the time up to which challenges are forgotten.
fn prepare(database: &Database) -> Result<u64, redb::Error> {
    let transaction = database.begin_write()?;
    transaction.open_table(USED)?;
    transaction.open_table(FORGOTTEN)?;
    transaction.commit()?;
    let transaction = database.begin_read()?;
    let forgotten = transaction.open_table(FORGOTTEN)?.get(())?;
    Ok(forgotten.map_or(0, |value| value.value()))
}

/// Answers everybody; whoever has gone does not need it.
fn reply(batch: &mut Vec<Attempt>, uses: impl Iterator<Item = Result<Use, UseError>>) {
    for (attempt, used) in batch.drain(..).zip(uses) {
        let _ = attempt.reply.send(used);
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use redb::StorageBackend;
    use redb::backends::InMemoryBackend;

    use super::*;

    fn id(expires_ms: u64, number: u8) -> ChallengeId {
        let mut id = ChallengeId::first_of(expires_ms);
        id.0[23] = number;
        id
    }

    #[tokio::test]
    async fn of_many_at_once_one_is_first_and_after_a_restart_none() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("challenges.redb");
        let far = clock::now_ms() + 60_000;
        let store = Arc::new(Store::open(&file).unwrap());
        let tasks: Vec<_> = (0..64)
            .map(|_| {
                let store = store.clone();
                tokio::spawn(async move { store.r#use(id(far, 1)).await.unwrap() })
            })
            .collect();
        let mut first = 0;
        for task in tasks {
            first += usize::from(task.await.unwrap() == Use::First);
        }
        assert_eq!(first, 1);
        assert_eq!(store.r#use(id(far, 2)).await, Ok(Use::First));

        drop(Arc::into_inner(store).unwrap());
        let store = Store::open(&file).unwrap();
        assert_eq!(store.r#use(id(far, 1)).await, Ok(Use::Again));
        assert_eq!(store.r#use(id(far, 3)).await, Ok(Use::First));
    }

    #[test]
    fn what_has_expired_is_forgotten_and_cannot_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("challenges.redb");
        let mut writer = Writer::new(move || Database::create(&file));
        let now = clock::now_ms();
        let attempt = |id| Attempt {
            id: Some(id),
            reply: oneshot::channel().0,
        };
        let (past, future) = (id(now - 1, 1), id(now + 60_000, 2));
        let batch = [attempt(past), attempt(future)];
        assert_eq!(writer.write(&batch).unwrap(), [Use::First, Use::First]);

        writer.pruned = Instant::now().checked_sub(PRUNE_EVERY).unwrap();
        writer.write(&[]).unwrap();
        // As if the clock had been set back, so that the challenge were open again.
        assert_eq!(writer.write(&batch).unwrap(), [Use::Forgotten, Use::Again]);
        // As after a restart.
        drop(writer.database.take());
        assert_eq!(writer.write(&batch).unwrap(), [Use::Forgotten, Use::Again]);
    }

    /// Memory that fails as a full disk does, when told so.
    #[derive(Debug, Default)]
    struct FullDisk(InMemoryBackend, Arc<AtomicBool>);

    impl FullDisk {
        fn check(&self) -> io::Result<()> {
            if self.1.load(Ordering::Relaxed) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            Ok(())
        }
    }

    impl StorageBackend for FullDisk {
        fn len(&self) -> io::Result<u64> {
            self.0.len()
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            self.0.read(offset, out)
        }

        fn set_len(&self, len: u64) -> io::Result<()> {
            self.check()?;
            self.0.set_len(len)
        }

        fn sync_data(&self) -> io::Result<()> {
            self.check()?;
            self.0.sync_data()
        }

        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.check()?;
            self.0.write(offset, data)
        }
    }

    #[tokio::test]
    async fn a_full_disk_refuses_uses_until_there_is_room_again() {
        let full = Arc::new(AtomicBool::new(false));
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("challenges.redb");
        let mut disks = vec![FullDisk(InMemoryBackend::new(), full.clone())];
        let mut writer = Writer::new(move || match disks.pop() {
            Some(disk) => Database::builder().create_with_backend(disk),
            None => Database::create(&file),
        });
        writer.open().unwrap();
        let store = Store::start(writer).unwrap();
        let far = clock::now_ms() + 60_000;
        assert_eq!(store.r#use(id(far, 1)).await, Ok(Use::First));
        assert!(store.is_healthy());

        full.store(true, Ordering::Relaxed);
        assert_eq!(store.r#use(id(far, 2)).await, Err(UseError::Failed));
        assert!(!store.is_healthy());
        // Whoever asks whether it is ready need not use a challenge for that.
        assert!(store.is_ready().await);
        assert!(store.is_healthy());
        assert_eq!(store.r#use(id(far, 2)).await, Ok(Use::First));
    }

    #[test]
    fn a_file_in_use_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("challenges.redb");
        let _store = Store::open(&file).unwrap();
        assert!(matches!(Store::open(&file), Err(StoreError::InUse { .. })));
    }
}
