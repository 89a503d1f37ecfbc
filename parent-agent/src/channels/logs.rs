//! The log channel: records in, acknowledgements out.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use link::BootId;
use link::frame::{FrameError, MAX_LOGS, Reader, Writer};
use link::logs::{Decompressor, FromAgent, FromInit};
use log_spool::{Boot, Spool};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::warn;

use crate::throttle::Line;

/// How long the first message may take after the hello, and an
/// acknowledgement to be read.
const PEER_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a log connection was closed.
#[derive(Debug, Error)]
pub enum LogsError {
    /// A frame could not be read or written.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The peer does not follow the protocol.
    #[error("the enclave breaks the log protocol: {0}")]
    Protocol(&'static str),
}

/// Where the records of an enclave's only boot go: into the spool.
#[derive(Debug)]
pub struct Logs {
    spool: Arc<Spool>,
    boot: Mutex<Option<Boot>>,
    /// The number of the latest connection; earlier ones close.
    latest: watch::Sender<u64>,
    /// How many connections are open.
    open: watch::Sender<usize>,
}

impl Logs {
    /// Stores records in `spool`.
    pub fn new(spool: Arc<Spool>) -> Self {
        Self {
            spool,
            boot: Mutex::default(),
            latest: watch::Sender::new(0),
            open: watch::Sender::new(0),
        }
    }

    /// The boot whose records have come.
    pub fn boot(&self) -> Option<Boot> {
        *self.boot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves one connection until it ends, or a later one takes its place.
    pub(super) async fn serve<S>(&self, stream: S) -> Result<(), LogsError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin,
    {
        let mut number = 0;
        self.latest.send_modify(|latest| {
            *latest += 1;
            number = *latest;
        });
        let mut latest = self.latest.subscribe();
        self.open.send_modify(|open| *open += 1);
        let result = tokio::select! {
            result = self.receive(stream) => result,
            _ = latest.wait_for(|latest| *latest != number) => Ok(()),
        };
        self.open.send_modify(|open| *open -= 1);
        result
    }

    /// Waits until every connection has ended, but no longer than `limit`.
    pub async fn drain(&self, limit: Duration) {
        let mut open = self.open.subscribe();
        if timeout(limit, open.wait_for(|open| *open == 0))
            .await
            .is_err()
        {
            warn!("the log connection is still open and is given up");
        }
    }

    async fn receive<S>(&self, stream: S) -> Result<(), LogsError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin,
    {
        let (read, write) = tokio::io::split(stream);
        let mut reader = Reader::new(read, MAX_LOGS);
        let mut writer = Writer::new(write, MAX_LOGS);
        let opened = timeout(PEER_TIMEOUT, reader.receive::<FromInit<'_>>())
            .await
            .map_err(|_| LogsError::Protocol("it does not say which boot its records are of"))?;
        let boot = match opened? {
            Some(FromInit::Open { boot }) => self.open(&boot)?,
            Some(FromInit::Batch { .. } | FromInit::Compressed { .. }) => {
                return Err(LogsError::Protocol("records come before their boot"));
            }
            None => return Ok(()),
        };
        self.acknowledge(boot, &mut writer).await?;
        let mut decompressor = Decompressor::new().map_err(FrameError::from)?;
        while let Some(message) = reader.receive::<FromInit<'_>>().await? {
            let Some(records) = decompressor.records(message)? else {
                return Err(LogsError::Protocol("a connection is opened twice"));
            };
            let missing = self.spool.store(boot, &records).await;
            if missing > 0 && Line::MissingRecords.may_be_written() {
                warn!(missing, "log records are missing");
            }
            drop(records);
            self.acknowledge(boot, &mut writer).await?;
        }
        Ok(())
    }

    fn open(&self, boot: &BootId) -> Result<Boot, LogsError> {
        let boot = Boot::new(boot).ok_or(LogsError::Protocol(
            "a boot has 16 bytes that are not all zero",
        ))?;
        let mut known = self.boot.lock().unwrap_or_else(PoisonError::into_inner);
        if *known.get_or_insert(boot) == boot {
            Ok(boot)
        } else {
            Err(LogsError::Protocol("the records are of another boot"))
        }
    }

    async fn acknowledge<W>(&self, boot: Boot, writer: &mut Writer<W>) -> Result<(), FrameError>
    where
        W: AsyncWrite + Unpin,
    {
        let stored = FromAgent::Stored {
            last: self.spool.held(boot),
        };
        timeout(PEER_TIMEOUT, writer.send(&stored))
            .await
            .map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))?
    }
}

#[cfg(test)]
mod tests {
    use link::logs::{LogStream, MAX_RECORD, Record, Source};
    use tempfile::TempDir;
    use tokio::io::{DuplexStream, ReadHalf, WriteHalf};

    use super::*;
    use log_spool::{Batch, Fsync, MIN_BYTES, Reader as SpoolReader, SpoolOptions, WhenFull};

    struct Init {
        reader: Reader<ReadHalf<DuplexStream>>,
        writer: Writer<WriteHalf<DuplexStream>>,
    }

    impl Init {
        fn connect(logs: &Arc<Logs>) -> (Self, tokio::task::JoinHandle<Result<(), LogsError>>) {
            let (near, far) = tokio::io::duplex(64 * 1024);
            let logs = Arc::clone(logs);
            let task = tokio::spawn(async move { logs.serve(far).await });
            let (read, write) = tokio::io::split(near);
            let init = Self {
                reader: Reader::new(read, MAX_LOGS),
                writer: Writer::new(write, MAX_LOGS),
            };
            (init, task)
        }

        async fn open(&mut self, boot: u8) -> Vec<(LogStream, u64)> {
            let boot = BootId::new(vec![boot; 16]).unwrap();
            self.writer.send(&FromInit::Open { boot }).await.unwrap();
            self.stored().await
        }

        async fn send(&mut self, records: Vec<Record<'_>>) {
            self.writer
                .send(&FromInit::Batch { records })
                .await
                .unwrap();
        }

        async fn stored(&mut self) -> Vec<(LogStream, u64)> {
            let FromAgent::Stored { last } = self.reader.receive().await.unwrap().unwrap();
            last
        }
    }

    fn record(sequence: u64, data: &[u8]) -> Record<'_> {
        Record {
            stream: LogStream::Application,
            sequence,
            time_us: 0,
            source: Source::Stdout,
            continues: false,
            data,
            workload: None,
        }
    }

    fn logs() -> (Arc<Logs>, TempDir) {
        let folder = tempfile::tempdir().unwrap();
        (Arc::new(Logs::new(open(&folder))), folder)
    }

    fn open(folder: &TempDir) -> Arc<Spool> {
        let options = SpoolOptions {
            max_bytes: MIN_BYTES,
            max_age: Duration::from_secs(60),
            when_full: WhenFull::Block,
            fsync: Fsync::Never,
        };
        Spool::open(folder.path(), options).unwrap().0
    }

    fn stored(folder: &TempDir) -> Vec<String> {
        let mut reader = SpoolReader::oldest(folder.path(), None);
        let mut batch = Batch::default();
        let mut lines = Vec::new();
        while reader.read(None, &mut batch).unwrap() {
            while let Some((_, record)) = batch.peek() {
                lines.push(String::from_utf8(record.data.to_vec()).unwrap());
                batch.advance();
            }
        }
        lines
    }

    #[tokio::test]
    async fn records_are_stored_once_and_acknowledged_across_connections() {
        let (logs, folder) = logs();
        let (mut init, _first) = Init::connect(&logs);
        assert_eq!(init.open(1).await, []);
        init.send(vec![record(1, b"one"), record(2, b"two")]).await;
        assert_eq!(init.stored().await, [(LogStream::Application, 2)]);
        // The first connection's end has not been noticed when the second begins.
        let (mut again, second) = Init::connect(&logs);
        assert_eq!(again.open(1).await, [(LogStream::Application, 2)]);
        again
            .send(vec![record(2, b"two"), record(3, b"three")])
            .await;
        assert_eq!(again.stored().await, [(LogStream::Application, 3)]);
        assert!(init.reader.receive::<FromAgent>().await.unwrap().is_none());
        drop(again);
        second.await.unwrap().unwrap();
        assert_eq!(logs.spool.counts(), (3, 0));
        assert_eq!(stored(&folder), ["one", "two", "three"]);
    }

    #[tokio::test]
    async fn the_next_agent_acknowledges_what_the_last_one_held() {
        let (logs, folder) = logs();
        let (mut init, task) = Init::connect(&logs);
        init.open(1).await;
        init.send(vec![record(1, b"one"), record(2, b"two")]).await;
        init.stored().await;
        drop(init);
        task.await.unwrap().unwrap();
        drop(logs);
        let logs = Arc::new(Logs::new(open(&folder)));
        let (mut init, _task) = Init::connect(&logs);
        assert_eq!(init.open(1).await, [(LogStream::Application, 2)]);
        init.send(vec![record(2, b"two"), record(3, b"three")])
            .await;
        assert_eq!(init.stored().await, [(LogStream::Application, 3)]);
        assert_eq!(stored(&folder), ["one", "two", "three"]);
    }

    #[tokio::test]
    async fn gaps_are_counted() {
        let (logs, _folder) = logs();
        let (mut init, _task) = Init::connect(&logs);
        init.open(1).await;
        init.send(vec![record(1, b"a"), record(5, b"b")]).await;
        assert_eq!(init.stored().await, [(LogStream::Application, 5)]);
        assert_eq!(logs.spool.counts(), (2, 3));
    }

    #[tokio::test]
    async fn breaches_end_the_connection() {
        let (logs, _folder) = logs();
        let (mut init, task) = Init::connect(&logs);
        init.send(vec![record(1, b"a")]).await;
        assert!(matches!(task.await.unwrap(), Err(LogsError::Protocol(_))));

        let (mut init, _task) = Init::connect(&logs);
        init.open(1).await;
        for boot in [vec![2; 16], vec![0; 16], vec![]] {
            let (mut other, task) = Init::connect(&logs);
            let boot = BootId::new(boot).unwrap();
            other.writer.send(&FromInit::Open { boot }).await.unwrap();
            assert!(matches!(task.await.unwrap(), Err(LogsError::Protocol(_))));
        }

        let (mut init, task) = Init::connect(&logs);
        init.open(1).await;
        let large = vec![0; MAX_RECORD + 1];
        init.send(vec![record(1, &large)]).await;
        assert!(matches!(task.await.unwrap(), Err(LogsError::Frame(_))));
    }
}
