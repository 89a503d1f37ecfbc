//! Records on their way to the parent, kept until they are acknowledged.
//!
//! While the parent takes records, a writer waits for room. Once it has taken
//! none for a second the oldest give way, and what was lost is itself recorded;
//! or the writer waits for as long as it takes, as the manifest says.

mod json;
mod lines;
mod queue;
mod records;
mod redaction;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use link::BootId;
use link::control::Losses;
use link::frame::{FrameError, MAX_LOGS, Reader, Writer};
use link::logs::{Compressor, FromAgent, FromInit, LogStream, MAX_RECORD, Source};
use link::{Channel, Endpoint, connect, hello};
use manifest::{Compression, LogRelease, WorkloadName};
use plain_text::plain_start;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

pub use lines::Piece;
use queue::{Origin, Queue, Queued};
pub use records::Records;
use redaction::Redactor;

/// Memory that is taken at once for what the workload writes, in bytes.
const READ_BYTES: usize = 64 * 1024;
/// Fewest bytes that are read at a time if there are as many.
const MIN_READ_BYTES: usize = 8 * 1024;
/// How long lines wait for others that belong to them.
const JOIN_TIMEOUT: Duration = Duration::from_secs(1);
/// Largest acknowledgement, in bytes: a number for each stream.
const MAX_STORED: usize = 256;
/// Most characters of a command's output in a sentence about it.
const MAX_OUTPUT: usize = 200;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the parent may take to say what it holds.
const STORED_TIMEOUT: Duration = Duration::from_secs(10);
/// How long few records wait for those before them to be acknowledged: a batch
/// costs both sides as much as tens of its records.
const GATHER_TIME: Duration = Duration::from_millis(10);
const RECONNECT_DELAY: Duration = Duration::from_millis(200);

/// A handle to the records.
#[derive(Debug, Clone)]
pub(crate) struct Logs {
    shared: Arc<Shared>,
    /// Whose records are added, where there are several workloads.
    workload: Option<WorkloadName>,
}

/// What is kept of a text of the workload's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Excerpt<'a> {
    pub(crate) text: &'a [u8],
    /// Whether that is all of it.
    pub(crate) is_whole: bool,
}

#[derive(Debug)]
struct Shared {
    config: manifest::Logs,
    is_released: bool,
    redactor: Arc<Redactor>,
    queue: Mutex<Queue>,
    /// The parent took records.
    room: Notify,
    /// Records were added.
    work: Notify,
}

impl Logs {
    /// As the measured configuration says, in an enclave that is in debug mode
    /// or not.
    pub(crate) fn new(config: manifest::Logs, is_debug: bool) -> Self {
        let shared = Shared {
            is_released: match config.release {
                LogRelease::Always => true,
                LogRelease::DebugOnly => is_debug,
                LogRelease::Never => false,
            },
            redactor: Arc::new(Redactor::new(&config.redact)),
            queue: Mutex::new(Queue::new(config.when_full, config.buffer, Instant::now())),
            config,
            room: Notify::new(),
            work: Notify::new(),
        };
        Self {
            shared: Arc::new(shared),
            workload: None,
        }
    }

    /// The same for records about one of several workloads.
    pub(crate) fn of(&self, workload: Option<&WorkloadName>) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            workload: workload.cloned(),
        }
    }

    /// Whether text of the workload's may leave the enclave.
    pub(crate) fn is_released(&self) -> bool {
        self.shared.is_released
    }

    /// A sentence about a command of the workload's, with the first line that it has written,
    /// if text of the workload's may leave the enclave: without its secrets, and in plain
    /// characters.
    pub(crate) fn with_output(&self, sentence: String, output: Excerpt<'_>) -> String {
        let line = self.is_released().then(|| self.first_line(output));
        match line.flatten() {
            None => sentence,
            Some(line) => {
                let line = String::from_utf8_lossy(&line);
                format!("{sentence}: {}", plain_start(line.trim(), MAX_OUTPUT))
            }
        }
    }

    /// The first line that is not blank. A secret may extend over several lines, so all of
    /// them are searched; and where the output was cut a secret may have been, so with rules
    /// only what is before the last line's beginning is told.
    fn first_line(&self, output: Excerpt<'_>) -> Option<Vec<u8>> {
        let redactor = &self.shared.redactor;
        let mut text = redactor.redact(output.text)?;
        if !output.is_whole && !redactor.is_empty() {
            let end = text.iter().rposition(|byte| *byte == b'\n')?;
            text = text.get(..end)?.to_vec().into();
        }
        let mut lines = text.split(|byte| *byte == b'\n');
        let line = lines.find(|line| !line.trim_ascii().is_empty())?;
        // Some rules are about lines.
        Some(redactor.redact(line)?.into_owned())
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

    /// Redacted too: there are names in them that the workload asked for.
    fn add(&self, stream: LogStream, text: &str) {
        let text = text.as_bytes();
        let text = text.get(..MAX_RECORD).unwrap_or(text);
        let redacted = self.shared.redactor.redact(text);
        let redacted =
            redacted.unwrap_or_else(|| Redactor::withheld(text.len()).into_bytes().into());
        let text = redacted.get(..MAX_RECORD).unwrap_or(&redacted);
        let text = Bytes::copy_from_slice(text);
        let origin = Origin {
            source: Source::Init,
            workload: self.workload.clone(),
        };
        self.queue()
            .add(stream, &origin, text, now_us(), Instant::now());
        self.shared.work.notify_one();
    }

    /// Carries one of the workload's outputs until it is closed. What may not
    /// leave is read, so that the workload never blocks, and forgotten.
    pub(crate) async fn carry(self, mut output: impl AsyncRead + Unpin, source: Source) {
        let origin = Origin {
            source,
            workload: self.workload.clone(),
        };
        let mut records =
            Records::with_redactor(&self.shared.config, Arc::clone(&self.shared.redactor));
        let mut buffer = BytesMut::new();
        loop {
            if buffer.capacity() < MIN_READ_BYTES {
                buffer.reserve(READ_BYTES);
            }
            let read = output.read_buf(&mut buffer);
            let read = if records.is_joining() {
                let Ok(read) = timeout(JOIN_TIMEOUT, read).await else {
                    records.flush();
                    self.append(&origin, &mut records, Bytes::new()).await;
                    continue;
                };
                read
            } else {
                read.await
            };
            if !matches!(read, Ok(1..)) {
                break;
            }
            if self.shared.is_released {
                let bytes = buffer.split().freeze();
                self.append(&origin, &mut records, bytes).await;
            } else {
                buffer.clear();
            }
        }
        records.finish();
        self.append(&origin, &mut records, Bytes::new()).await;
    }

    /// Adds what bytes of the workload's output complete; waits for room.
    async fn append(&self, origin: &Origin, records: &mut Records, mut bytes: Bytes) {
        let now_us = now_us();
        let mut waiting = None;
        loop {
            let room = self.shared.room.notified();
            let patience_ends = {
                let mut queue = self.queue();
                let now = Instant::now();
                loop {
                    let next = waiting.take();
                    let Some(piece) = next.or_else(|| records.next(&mut bytes, now_us)) else {
                        break None;
                    };
                    if let Err(piece) = queue.offer(origin, piece, now) {
                        waiting = Some(piece);
                        break Some(queue.patience_ends());
                    }
                }
            };
            self.shared.work.notify_one();
            match patience_ends {
                None => return,
                Some(None) => room.await,
                // Nobody made room: the oldest give way now.
                Some(Some(end)) => drop(timeout_at(end, room).await),
            }
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
            }
            sleep(RECONNECT_DELAY).await;
        }
    }

    async fn serve<S>(&self, stream: S, boot: BootId) -> Result<(), FrameError>
    where
        S: AsyncRead + AsyncWrite,
    {
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
        if self.queue().begin(&last, Instant::now()) {
            self.shared.room.notify_waiters();
        }
        let acknowledged = async {
            while let Some(FromAgent::Stored { last }) = reader.receive().await? {
                if self.queue().acknowledge(&last, Instant::now()) {
                    self.shared.room.notify_waiters();
                    // Room for a report of lost records may be work.
                    self.shared.work.notify_one();
                }
            }
            Ok(())
        };
        let mut compressor = match self.shared.config.compression {
            Compression::None => None,
            Compression::Zstd => Some(Compressor::new()?),
        };
        let sent = async {
            let mut gathered_until = Instant::now();
            loop {
                if self.queue().gathers() && Instant::now() < gathered_until {
                    // What comes meanwhile is the condition's affair.
                    let _ = timeout_at(gathered_until, self.shared.work.notified()).await;
                    continue;
                }
                let batch = self.queue().next_batch(now_us(), Instant::now());
                if batch.is_empty() {
                    self.shared.work.notified().await;
                    continue;
                }
                gathered_until = Instant::now() + GATHER_TIME;
                let records = batch.iter().map(Queued::record).collect();
                match &mut compressor {
                    None => writer.send(&FromInit::Batch { records }).await?,
                    Some(compressor) => writer.send(&compressor.compress(records)?).await?,
                }
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
            let room = self.shared.room.notified();
            if self.queue().is_empty() {
                return;
            }
            room.await;
        }
    }

    /// Waits until there has been something for the parent to take, and it took
    /// nothing, for so long.
    pub(crate) async fn stalled(&self, limit: Duration) {
        let begun = Instant::now();
        loop {
            let since = self.queue().waiting_since();
            let end = match since {
                // It may not have had the time to take anything yet.
                Some(since) => since.max(begun) + limit,
                None => Instant::now() + limit,
            };
            if end <= Instant::now() {
                return;
            }
            sleep_until(end).await;
        }
    }

    /// Gives up what the parent does not hold, and whatever is still added: it is
    /// counted as lost. Those who wait for room go on.
    pub(crate) fn abandon(&self) {
        self.queue().abandon();
        self.shared.room.notify_waiters();
    }

    /// The same at once, with what is then lost and the last numbers given; `None`
    /// if somebody else is at the queue.
    pub(crate) fn try_abandon(&self) -> Option<(Losses, Vec<(LogStream, u64)>)> {
        let mut queue = self.shared.queue.try_lock().ok()?;
        queue.abandon();
        Some((queue.losses(), queue.numbered()))
    }

    /// Records that were lost since the start.
    pub(crate) fn losses(&self) -> Losses {
        self.queue().losses()
    }

    /// The last number given, for each stream that has any.
    pub(crate) fn numbered(&self) -> Vec<(LogStream, u64)> {
        self.queue().numbered()
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.shared
            .queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn now_us() -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
