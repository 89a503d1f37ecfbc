//! Records on their way to the parent, kept until they are acknowledged.
//!
//! While the parent takes records, a writer waits for room. While there is no
//! parent the oldest records give way, and the number that was lost is itself
//! recorded. A parent that stays connected and takes nothing is back-pressure.

mod lines;
mod queue;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use link::control::BootId;
use link::frame::{FrameError, MAX_LOGS, Reader, Writer};
use link::logs::{FromAgent, FromInit, LogStream, MAX_RECORD, Source};
use link::{Channel, Endpoint, Stream, connect, hello};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use lines::{Lines, Piece};
use queue::{Queue, Queued};

/// Bytes read from the workload at a time.
const READ_BYTES: usize = 16 * 1024;
/// Largest acknowledgement, in bytes: a number for each stream.
const MAX_STORED: usize = 256;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the parent may take to say what it holds.
const STORED_TIMEOUT: Duration = Duration::from_secs(10);
const RECONNECT_DELAY: Duration = Duration::from_millis(200);

/// A handle to the records.
#[derive(Debug, Clone)]
pub(crate) struct Logs(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    /// Records were acknowledged, or the connection was lost.
    room: Notify,
    /// Records were added.
    work: Notify,
}

impl Logs {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Shared {
            queue: Mutex::default(),
            room: Notify::new(),
            work: Notify::new(),
        }))
    }

    /// Adds one of the init's own records.
    pub(crate) fn system(&self, text: impl AsRef<str>) {
        self.add(LogStream::System, text.as_ref());
    }

    /// Adds a record of something that went wrong, to `errors` and `system`.
    pub(crate) fn error(&self, text: impl AsRef<str>) {
        self.add(LogStream::System, text.as_ref());
        self.add(LogStream::Errors, text.as_ref());
    }

    /// Adds a record of the workload's health.
    pub(crate) fn health(&self, text: impl AsRef<str>) {
        self.add(LogStream::Health, text.as_ref());
    }

    fn add(&self, stream: LogStream, text: &str) {
        let text = text.as_bytes();
        let text = text.get(..MAX_RECORD).unwrap_or(text).into();
        self.queue().push(stream, Source::Init, false, text);
        self.0.work.notify_one();
    }

    /// Adds a piece of the workload's output; waits for room while the parent
    /// takes records.
    async fn append(&self, source: Source, piece: Piece) {
        loop {
            let room = self.0.room.notified();
            {
                let mut queue = self.queue();
                if queue.has_room(source, piece.data.len()) || !queue.connected {
                    queue.push(LogStream::Application, source, piece.continues, piece.data);
                    break;
                }
            }
            room.await;
        }
        self.0.work.notify_one();
    }

    /// Carries one of the workload's outputs until it is closed. Without
    /// `release` it is read, so that the workload never blocks, and forgotten.
    pub(crate) async fn carry(
        self,
        mut output: impl AsyncRead + Unpin,
        source: Source,
        release: bool,
    ) {
        let mut lines = Lines::default();
        let mut buffer = vec![0; READ_BYTES];
        while let Ok(count @ 1..) = output.read(&mut buffer).await {
            let mut bytes = buffer.get(..count).unwrap_or_default();
            while release && let Some(piece) = lines.next(&mut bytes) {
                self.append(source, piece).await;
            }
        }
        if let Some(rest) = lines.finish() {
            self.append(source, rest).await;
        }
    }

    /// Sends records to the parent, connecting again whenever it goes away.
    pub(crate) async fn send(self, agent: Endpoint, boot: BootId) {
        loop {
            if let Ok(mut stream) = connect(&agent, CONNECT_TIMEOUT).await
                && hello::open(&mut stream, Channel::Logs).await.is_ok()
            {
                // Why a connection ended does not matter: the next one goes on.
                let _ = self.serve(stream, boot.clone()).await;
                self.queue().connected = false;
                self.0.room.notify_waiters();
            }
            sleep(RECONNECT_DELAY).await;
        }
    }

    async fn serve(&self, stream: Stream, boot: BootId) -> Result<(), FrameError> {
        let (reader, writer) = tokio::io::split(stream);
        let mut reader = Reader::new(reader, MAX_STORED);
        let mut writer = Writer::new(writer, MAX_LOGS);
        let opening = async {
            writer.send(&FromInit::Open { boot }).await?;
            reader.receive().await
        };
        let Ok(opened) = timeout(STORED_TIMEOUT, opening).await else {
            return Ok(());
        };
        let Some(FromAgent::Stored { last }) = opened? else {
            return Ok(());
        };
        self.queue().begin(&last);
        self.0.room.notify_waiters();
        let acknowledged = async {
            while let Some(FromAgent::Stored { last }) = reader.receive().await? {
                self.queue().acknowledge(&last);
                self.0.room.notify_waiters();
                // Room for a report of lost records may be work.
                self.0.work.notify_one();
            }
            Ok(())
        };
        let sent = async {
            loop {
                let batch = self.queue().next_batch();
                if batch.is_empty() {
                    self.0.work.notified().await;
                    continue;
                }
                let records = batch.iter().map(Queued::record).collect();
                writer.send(&FromInit::Batch { records }).await?;
            }
        };
        tokio::select! {
            result = acknowledged => result,
            result = sent => result,
        }
    }

    /// Waits until the parent holds everything.
    pub(crate) async fn drain(&self) {
        loop {
            let room = self.0.room.notified();
            if self.queue().is_empty() {
                return;
            }
            room.await;
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
