//! The log channel: records in, acknowledgements out.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use link::control::BootId;
use link::frame::{FrameError, MAX_LOGS, Reader, Writer};
use link::logs::{Decompressor, FromAgent, FromInit, LogStream, Record};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::warn;

use crate::output::Output;
use crate::report;

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

/// Where the records of an enclave's only boot go: standard output.
#[derive(Debug)]
pub struct Logs {
    output: Output,
    json: bool,
    positions: Mutex<Positions>,
    /// The number of the latest connection; earlier ones close.
    latest: watch::Sender<u64>,
    /// How many connections are open.
    open: watch::Sender<usize>,
}

/// How far each stream has come.
#[derive(Debug, Default)]
struct Positions {
    boot: Option<BootId>,
    last: BTreeMap<LogStream, u64>,
    records: u64,
    missing: u64,
}

/// A moment's reading.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogCounts {
    /// Records received.
    pub records: u64,
    /// Numbers that were left out.
    pub missing: u64,
}

impl Logs {
    /// Writes records to `output`, as text or as JSON.
    pub fn new(output: Output, json: bool) -> Self {
        Self {
            output,
            json,
            positions: Mutex::default(),
            latest: watch::Sender::new(0),
            open: watch::Sender::new(0),
        }
    }

    /// What has been received.
    pub fn counts(&self) -> LogCounts {
        let positions = self
            .positions
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        LogCounts {
            records: positions.records,
            missing: positions.missing,
        }
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
        match opened? {
            Some(FromInit::Open { boot }) => self.open(boot)?,
            Some(FromInit::Batch { .. } | FromInit::Compressed { .. }) => {
                return Err(LogsError::Protocol("records come before their boot"));
            }
            None => return Ok(()),
        }
        self.acknowledge(&mut writer).await?;
        let mut decompressor = Decompressor::new().map_err(FrameError::from)?;
        while let Some(message) = reader.receive::<FromInit<'_>>().await? {
            let Some(records) = decompressor.records(message)? else {
                return Err(LogsError::Protocol("a connection is opened twice"));
            };
            let lines = self.take(&records);
            drop(records);
            if !lines.is_empty() {
                self.output.write(lines).await;
            }
            self.acknowledge(&mut writer).await?;
        }
        Ok(())
    }

    fn open(&self, boot: BootId) -> Result<(), LogsError> {
        let mut positions = self
            .positions
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match &positions.boot {
            Some(known) if *known != boot => {
                Err(LogsError::Protocol("the records are of another boot"))
            }
            _ => {
                positions.boot = Some(boot);
                Ok(())
            }
        }
    }

    /// Takes the records that are new, and gives them as lines.
    fn take(&self, records: &[Record<'_>]) -> Vec<u8> {
        let mut positions = self
            .positions
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut lines = Vec::new();
        for record in records {
            let last = positions.last.get(&record.stream).copied().unwrap_or(0);
            let Some(ahead) = record.sequence.checked_sub(last).filter(|&ahead| ahead > 0) else {
                continue;
            };
            if ahead > 1 {
                let missing = ahead - 1;
                positions.missing = positions.missing.saturating_add(missing);
                warn!(
                    stream = record.stream.name(),
                    missing, "log records are missing"
                );
            }
            positions.last.insert(record.stream, record.sequence);
            positions.records += 1;
            report::log_line(record, self.json, &mut lines);
        }
        lines
    }

    async fn acknowledge<W>(&self, writer: &mut Writer<W>) -> Result<(), FrameError>
    where
        W: AsyncWrite + Unpin,
    {
        let last = {
            let positions = self
                .positions
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            positions
                .last
                .iter()
                .map(|(&stream, &last)| (stream, last))
                .collect()
        };
        let stored = FromAgent::Stored { last };
        timeout(PEER_TIMEOUT, writer.send(&stored))
            .await
            .map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))?
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use link::logs::{MAX_RECORD, Source};
    use tokio::io::{AsyncReadExt, DuplexStream, ReadHalf, WriteHalf};

    use super::*;

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
        }
    }

    fn logs() -> (Arc<Logs>, DuplexStream) {
        let (reader, writer) = tokio::io::duplex(64 * 1024);
        let (output, _task) = Output::new(writer);
        (Arc::new(Logs::new(output, false)), reader)
    }

    #[tokio::test]
    async fn records_are_written_once_and_acknowledged_across_connections() {
        let (logs, mut printed) = logs();
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
        assert_eq!(
            logs.counts(),
            LogCounts {
                records: 3,
                missing: 0
            }
        );
        drop(logs);
        let mut text = String::new();
        printed.read_to_string(&mut text).await.unwrap();
        let lines: Vec<_> = text
            .lines()
            .map(|line| line.rsplit(' ').next().unwrap())
            .collect();
        assert_eq!(lines, ["one", "two", "three"]);
    }

    #[tokio::test]
    async fn gaps_are_counted() {
        let (logs, _printed) = logs();
        let (mut init, _task) = Init::connect(&logs);
        init.open(1).await;
        init.send(vec![record(1, b"a"), record(5, b"b")]).await;
        assert_eq!(init.stored().await, [(LogStream::Application, 5)]);
        assert_eq!(
            logs.counts(),
            LogCounts {
                records: 2,
                missing: 3
            }
        );
    }

    #[tokio::test]
    async fn breaches_end_the_connection() {
        let (logs, _printed) = logs();
        let (mut init, task) = Init::connect(&logs);
        init.send(vec![record(1, b"a")]).await;
        assert!(matches!(task.await.unwrap(), Err(LogsError::Protocol(_))));

        let (mut init, _task) = Init::connect(&logs);
        init.open(1).await;
        let (mut other, task) = Init::connect(&logs);
        let boot = BootId::new(vec![2; 16]).unwrap();
        other.writer.send(&FromInit::Open { boot }).await.unwrap();
        assert!(matches!(task.await.unwrap(), Err(LogsError::Protocol(_))));

        let (mut init, task) = Init::connect(&logs);
        init.open(1).await;
        let large = vec![0; MAX_RECORD + 1];
        init.send(vec![record(1, &large)]).await;
        assert!(matches!(task.await.unwrap(), Err(LogsError::Frame(_))));
    }
}
