//! From the spool to one sink, for as long as the agent runs.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use link::logs::LogStream;
use log_spool::{Batch, Cursor, Progress, Reader, Spool};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, info, warn};

use super::telemetry::SinkMetrics;
use super::{SendError, Sink};

/// The least time between two writes of a sink's place. After a kill, what was
/// sent in that time is sent again.
const SAVE_INTERVAL: Duration = Duration::from_millis(100);
/// How often a sink that may let records wait looks for more of them.
const GATHER_INTERVAL: Duration = Duration::from_millis(20);
/// How long to wait when the spool cannot be read.
const READ_RETRY: Duration = Duration::from_secs(1);
/// The longest wait between two tries once the agent is ending.
const LAST_RETRY: Duration = Duration::from_millis(250);
/// A failure that lasts so long is recorded in the log itself.
const NOTED_AFTER: Duration = Duration::from_secs(10);

/// Carries records from the spool to one sink.
pub(super) struct Forwarder<S> {
    sink: S,
    /// What its place in the spool is kept under.
    name: String,
    stream: Option<LogStream>,
    spool: Arc<Spool>,
    metrics: Arc<SinkMetrics>,
    /// Set once everything that will come has come.
    stop: watch::Receiver<bool>,
    progress: watch::Receiver<Progress>,
    input: Input,
    passed: Cursor,
    saved: Cursor,
    saved_at: Instant,
}

/// What is read, moved to a blocking thread and back.
struct Input {
    reader: Reader,
    batch: Batch,
}

impl Input {
    /// What has been taken.
    fn cursor(&self) -> Cursor {
        if self.batch.peek().is_some() {
            self.batch.cursor()
        } else {
            self.reader.cursor()
        }
    }
}

impl<S: Sink> Forwarder<S> {
    /// A forwarder of one stream, or of all. It holds the sink's place in the
    /// spool from here on. Blocks on the disk.
    pub(super) fn new(
        sink: S,
        name: String,
        stream: Option<LogStream>,
        spool: &Arc<Spool>,
        metrics: Arc<SinkMetrics>,
        stop: watch::Receiver<bool>,
    ) -> Self {
        let cursor = spool.cursor(&name);
        metrics.passed(cursor);
        Self {
            sink,
            name,
            stream,
            progress: spool.progress(),
            input: Input {
                reader: Reader::at(spool.directory(), stream, cursor),
                batch: Batch::default(),
            },
            spool: Arc::clone(spool),
            metrics,
            stop,
            passed: cursor,
            saved: cursor,
            saved_at: Instant::now(),
        }
    }

    /// Runs until everything has been sent after a stop.
    pub(super) async fn run(mut self) {
        let mut waits_since = None;
        loop {
            let stopping = self.is_stopping();
            let full = self.fill(&mut waits_since).await;
            if self.sink.is_empty() {
                self.passed = self.input.cursor();
                self.metrics.passed(self.passed);
                if stopping {
                    self.save().await;
                    return;
                }
                self.idle().await;
                continue;
            }
            let due = waits_since.unwrap_or_else(Instant::now) + S::LINGER;
            if !full && !stopping && Instant::now() < due {
                self.gather(due).await;
                continue;
            }
            self.deliver().await;
            waits_since = None;
            self.metrics.waits_since(None);
            self.passed = self.input.cursor();
            self.metrics.passed(self.passed);
            if self.saved_at.elapsed() >= SAVE_INTERVAL {
                self.save().await;
            }
        }
    }

    fn is_stopping(&self) -> bool {
        // Without a sender nobody waits any more.
        *self.stop.borrow() || self.stop.has_changed().is_err()
    }

    /// Takes records into the sink's batch; says whether that is full.
    async fn fill(&mut self, waits_since: &mut Option<Instant>) -> bool {
        loop {
            while let Some((_, record)) = self.input.batch.peek() {
                if self.stream.is_none_or(|stream| stream == record.stream) {
                    if !self.sink.push(&self.input.batch, &record) {
                        return true;
                    }
                    if waits_since.is_none() {
                        *waits_since = Some(Instant::now());
                        self.metrics.waits_since(Some(self.input.batch.stored_us));
                    }
                }
                self.input.batch.advance();
            }
            let limit = self.progress.borrow_and_update().offset;
            if self.input.reader.cursor().offset >= limit {
                return false;
            }
            match self.read(limit).await {
                Ok(true) => {}
                Ok(false) => return false,
                Err(error) => {
                    warn!(%error, sink = self.name, "the log spool cannot be read");
                    sleep(READ_RETRY).await;
                    return false;
                }
            }
            let losses = self.input.reader.take_losses();
            self.metrics.lost("removed", losses.removed);
            self.metrics.lost("damaged", losses.damaged);
            if losses.removed + losses.damaged > 0 {
                let text = format!(
                    "log records did not reach the sink {}: {} were removed from the full spool, {} were damaged on the disk",
                    self.name, losses.removed, losses.damaged
                );
                warn!("{text}");
                self.note(text).await;
            }
        }
    }

    async fn read(&mut self, limit: u64) -> io::Result<bool> {
        let directory = self.spool.directory();
        let nothing = Input {
            reader: Reader::at(directory, self.stream, self.passed),
            batch: Batch::default(),
        };
        let mut input = std::mem::replace(&mut self.input, nothing);
        let read = tokio::task::spawn_blocking(move || {
            let result = input.reader.read(Some(limit), &mut input.batch);
            (input, result)
        });
        // It fails only when the runtime ends.
        let (input, result) = read.await.map_err(io::Error::other)?;
        self.input = input;
        result
    }

    /// Waits for something to do.
    async fn idle(&mut self) {
        let due = self.saved_at + SAVE_INTERVAL;
        let unsaved = self.passed != self.saved;
        tokio::select! {
            () = sleep_until(due), if unsaved => self.save().await,
            changed = self.progress.changed() => if changed.is_err() {
                sleep(READ_RETRY).await;
            } else if !S::LINGER.is_zero() {
                self.gather(Instant::now() + S::LINGER).await;
            },
            changed = self.stop.changed() => if changed.is_err() {
                debug!(sink = self.name, "the sink ends without having been told to");
            },
        }
    }

    /// Lets records gather, but not beyond `due`: to look at each append would
    /// cost more than to pass it on.
    async fn gather(&mut self, due: Instant) {
        let until = due.min(Instant::now() + GATHER_INTERVAL);
        tokio::select! {
            () = sleep_until(until) => {}
            _ = self.stop.changed() => {}
        }
    }

    /// Sends the batch, however long that takes.
    async fn deliver(&mut self) {
        let fill = self.sink.fill();
        let start = Instant::now();
        let mut failures = 0;
        let mut noted = false;
        loop {
            let error = match self.sink.send().await {
                Ok(delivered) => {
                    self.metrics.delivered(&delivered, fill);
                    for (reason, count) in delivered.refused {
                        let text = format!(
                            "{count} log records were refused by the sink {}: {reason}",
                            self.name
                        );
                        warn!("{text}");
                        self.note(text).await;
                    }
                    if noted {
                        let seconds = start.elapsed().as_secs();
                        let text = format!(
                            "the sink {} takes log records again, after {seconds} s and {failures} failures",
                            self.name
                        );
                        info!("{text}");
                        self.note(text).await;
                    }
                    return;
                }
                Err(error) => error,
            };
            self.metrics.failed(&error);
            debug!(
                sink = self.name,
                class = error.class.name(),
                "{}",
                error.message
            );
            if !noted && (start.elapsed() >= NOTED_AFTER || needs_somebody(&error)) {
                let text = format!(
                    "the sink {} takes no log records, they stay in the spool: {}",
                    self.name, error.message
                );
                warn!("{text}");
                self.note(text).await;
                noted = true;
            }
            self.pause(error.class.backoff(failures)).await;
            failures = failures.saturating_add(1);
        }
    }

    async fn pause(&mut self, wait: Duration) {
        let until = Instant::now() + wait;
        if self.is_stopping() {
            sleep(wait.min(LAST_RETRY)).await;
            return;
        }
        tokio::select! {
            () = sleep_until(until) => {}
            // The last chance should not be slept through.
            _ = self.stop.changed() => {}
        }
    }

    /// Records in the enclave's own log what an operator must know.
    async fn note(&self, text: String) {
        self.spool.note(LogStream::System, text.clone()).await;
        self.spool.note(LogStream::Errors, text).await;
    }

    async fn save(&mut self) {
        self.saved_at = Instant::now();
        if self.passed == self.saved {
            return;
        }
        let (spool, name, cursor) = (Arc::clone(&self.spool), self.name.clone(), self.passed);
        let saved = tokio::task::spawn_blocking(move || spool.save_cursor(&name, cursor)).await;
        if matches!(saved, Ok(true)) {
            self.saved = cursor;
        }
    }
}

/// Whether waiting alone will hardly help.
fn needs_somebody(error: &SendError) -> bool {
    use super::ErrorClass::{Denied, NotFound, Refused};
    matches!(error.class, Denied | NotFound | Refused)
}
