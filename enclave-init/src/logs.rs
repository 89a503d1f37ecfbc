//! Records on their way to the parent: numbered per stream, kept until they
//! are acknowledged, bounded in memory.
//!
//! While the parent takes records, a writer waits for room. While there is no
//! parent the oldest records give way, and the number that was lost is itself
//! recorded.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use link::control::BootId;
use link::frame::{MAX_LOGS, Reader, Writer};
use link::logs::{FromAgent, FromInit, LogStream, MAX_BATCH_RECORDS, MAX_RECORD, Record, Source};
use link::{Channel, Endpoint, Stream, connect, hello};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

/// Memory that unacknowledged records may take, in bytes of text.
const MAX_QUEUED: usize = 4 * 1024 * 1024;
/// What a record costs beyond its text.
const RECORD_OVERHEAD: usize = 64;
/// Text of one batch, in bytes; with the records' fields it stays below a frame's limit.
const MAX_BATCH: usize = 256 * 1024;
/// Bytes read from the workload at a time.
const READ_BYTES: usize = 64 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
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

#[derive(Debug, Default)]
struct Queue {
    records: VecDeque<Queued>,
    bytes: usize,
    /// How many records at the front the current connection has carried.
    sent: usize,
    last: [u64; LogStream::ALL.len()],
    connected: bool,
    dropped: u64,
}

#[derive(Debug, Clone)]
struct Queued {
    stream: LogStream,
    sequence: u64,
    time_us: u64,
    source: Source,
    continues: bool,
    data: Bytes,
}

impl Queued {
    fn cost(&self) -> usize {
        self.data.len() + RECORD_OVERHEAD
    }
}

impl Queue {
    fn has_room(&self, bytes: usize) -> bool {
        self.bytes + bytes + RECORD_OVERHEAD <= MAX_QUEUED
    }

    fn push(&mut self, stream: LogStream, source: Source, continues: bool, data: Bytes) {
        while !self.has_room(data.len()) && self.pop() {
            self.dropped += 1;
        }
        let sequence = self.number(stream);
        let queued = Queued {
            stream,
            sequence,
            time_us: now_us(),
            source,
            continues,
            data,
        };
        self.bytes += queued.cost();
        self.records.push_back(queued);
    }

    fn number(&mut self, stream: LogStream) -> u64 {
        match self.last.get_mut(stream as usize) {
            Some(last) => {
                *last += 1;
                *last
            }
            None => 0,
        }
    }

    fn pop(&mut self) -> bool {
        let Some(record) = self.records.pop_front() else {
            return false;
        };
        self.bytes -= record.cost();
        self.sent = self.sent.saturating_sub(1);
        true
    }

    /// Drops what the parent holds: records leave in the order they came.
    fn acknowledge(&mut self, stored: &[(LogStream, u64)]) {
        let is_stored = |record: &Queued| {
            stored
                .iter()
                .any(|(stream, last)| *stream == record.stream && record.sequence <= *last)
        };
        while self.records.front().is_some_and(is_stored) {
            self.pop();
        }
    }

    fn report_drops(&mut self) {
        if self.dropped > 0 {
            let text = format!(
                "{} log records were dropped while the parent took none",
                self.dropped
            );
            self.dropped = 0;
            self.push(LogStream::Errors, Source::Init, false, text.into());
        }
    }

    /// The next records that this connection has not carried.
    fn next_batch(&mut self) -> Vec<Queued> {
        self.report_drops();
        let mut bytes = 0;
        let batch: Vec<_> = self
            .records
            .iter()
            .skip(self.sent)
            .take(MAX_BATCH_RECORDS)
            .take_while(|record| {
                bytes += record.data.len();
                bytes <= MAX_BATCH.max(record.data.len())
            })
            .cloned()
            .collect();
        self.sent += batch.len();
        batch
    }
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
    pub(crate) fn system(&self, text: impl Into<String>) {
        self.add(LogStream::System, text.into());
    }

    /// Adds a record of something that went wrong, to `errors` and `system`.
    pub(crate) fn error(&self, text: impl Into<String>) {
        let text = text.into();
        self.add(LogStream::System, text.clone());
        self.add(LogStream::Errors, text);
    }

    /// Adds a record of the workload's health.
    pub(crate) fn health(&self, text: impl Into<String>) {
        self.add(LogStream::Health, text.into());
    }

    fn add(&self, stream: LogStream, text: String) {
        let mut data = Bytes::from(text);
        data.truncate(MAX_RECORD);
        self.queue().push(stream, Source::Init, false, data);
        self.0.work.notify_one();
    }

    /// Adds a piece of the workload's output; waits for room while the parent
    /// takes records.
    async fn append(&self, source: Source, continues: bool, data: Bytes) {
        loop {
            let room = self.0.room.notified();
            {
                let mut queue = self.queue();
                if queue.has_room(data.len()) || !queue.connected {
                    queue.push(LogStream::Application, source, continues, data);
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
            if !release {
                continue;
            }
            for (data, continues) in lines.split(buffer.get(..count).unwrap_or_default()) {
                self.append(source, continues, data).await;
            }
        }
        if let Some(rest) = lines.finish() {
            self.append(source, false, rest).await;
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

    async fn serve(&self, stream: Stream, boot: BootId) -> Result<(), link::frame::FrameError> {
        let (reader, writer) = tokio::io::split(stream);
        let (mut reader, mut writer) =
            (Reader::new(reader, MAX_LOGS), Writer::new(writer, MAX_LOGS));
        writer.send(&FromInit::Open { boot }).await?;
        let Some(FromAgent::Stored { last }) = reader.receive().await? else {
            return Ok(());
        };
        {
            let mut queue = self.queue();
            queue.acknowledge(&last);
            queue.sent = 0;
            queue.connected = true;
        }
        let acknowledged = async {
            while let Some(FromAgent::Stored { last }) = reader.receive().await? {
                self.queue().acknowledge(&last);
                self.0.room.notify_waiters();
            }
            Ok(())
        };
        let sent = async {
            loop {
                let work = self.0.work.notified();
                let batch = self.queue().next_batch();
                if batch.is_empty() {
                    work.await;
                    continue;
                }
                let records = batch
                    .iter()
                    .map(|queued| Record {
                        stream: queued.stream,
                        sequence: queued.sequence,
                        time_us: queued.time_us,
                        source: queued.source,
                        continues: queued.continues,
                        data: &queued.data,
                    })
                    .collect();
                writer.send(&FromInit::Batch { records }).await?;
            }
        };
        tokio::select! {
            result = acknowledged => result,
            result = sent => result,
        }
    }

    /// Waits until the parent holds everything, but no longer than `limit`.
    pub(crate) async fn drain(&self, limit: Duration) {
        let empty = async {
            loop {
                let room = self.0.room.notified();
                if self.queue().records.is_empty() {
                    return;
                }
                room.await;
            }
        };
        let _ = timeout(limit, empty).await;
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Cuts output into lines, and lines that are too long into pieces.
#[derive(Debug, Default)]
struct Lines {
    /// The beginning of a line whose end has not come yet.
    start: Vec<u8>,
}

impl Lines {
    /// The pieces that `bytes` completes, and whether each line goes on.
    fn split(&mut self, bytes: &[u8]) -> Vec<(Bytes, bool)> {
        let mut pieces = Vec::new();
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
            let (line, behind) = rest.split_at(end);
            self.add(line, &mut pieces);
            pieces.push((std::mem::take(&mut self.start).into(), false));
            rest = behind.get(1..).unwrap_or_default();
        }
        self.add(rest, &mut pieces);
        pieces
    }

    fn add(&mut self, mut part: &[u8], pieces: &mut Vec<(Bytes, bool)>) {
        while self.start.len() + part.len() > MAX_RECORD {
            let (fits, behind) = part.split_at(MAX_RECORD - self.start.len());
            self.start.extend_from_slice(fits);
            pieces.push((std::mem::take(&mut self.start).into(), true));
            part = behind;
        }
        self.start.extend_from_slice(part);
    }

    /// What was written after the last line's end.
    fn finish(self) -> Option<Bytes> {
        (!self.start.is_empty()).then(|| self.start.into())
    }
}

fn now_us() -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_survive_any_cut() {
        let long = [vec![b'x'; 2 * MAX_RECORD + 10], b"\n".to_vec()].concat();
        let text = [b"one\n\n\xff\xfe two\n".as_slice(), &long, b"no end"].concat();
        for step in [1, 7, 4096, text.len()] {
            let mut lines = Lines::default();
            let mut joined = Vec::new();
            for chunk in text.chunks(step) {
                for (data, continues) in lines.split(chunk) {
                    assert!(data.len() <= MAX_RECORD);
                    joined.extend_from_slice(&data);
                    if !continues {
                        joined.push(b'\n');
                    }
                }
            }
            joined.extend(lines.finish().unwrap());
            assert_eq!(joined, text, "step {step}");
        }
    }

    #[test]
    fn a_full_queue_drops_the_oldest_and_says_so() {
        let mut queue = Queue::default();
        let piece = Bytes::from(vec![0; MAX_RECORD]);
        for _ in 0..100 {
            queue.push(LogStream::Application, Source::Stdout, false, piece.clone());
        }
        assert!(queue.bytes <= MAX_QUEUED);
        let kept = queue.records.len() as u64;
        assert_eq!(queue.dropped, 100 - kept);
        assert_eq!(queue.records.front().unwrap().sequence, 101 - kept);
        queue.report_drops();
        assert!(queue.records.back().unwrap().data.ends_with(b"took none"));
    }

    #[test]
    fn acknowledged_records_leave() {
        let mut queue = Queue::default();
        for _ in 0..3 {
            queue.push(
                LogStream::Application,
                Source::Stdout,
                false,
                Bytes::from_static(b"a"),
            );
            queue.push(
                LogStream::System,
                Source::Init,
                false,
                Bytes::from_static(b"b"),
            );
        }
        assert_eq!(queue.next_batch().len(), 6);
        queue.acknowledge(&[(LogStream::Application, 3), (LogStream::System, 1)]);
        assert_eq!((queue.records.len(), queue.sent), (3, 3));
        queue.acknowledge(&[(LogStream::Application, 3), (LogStream::System, 3)]);
        assert_eq!((queue.records.len(), queue.bytes, queue.sent), (0, 0, 0));
    }
}
