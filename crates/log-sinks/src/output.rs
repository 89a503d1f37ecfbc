//! Standard output and standard error, each written by one task so that a slow
//! reader holds up only those who wait for it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::error;

/// Most chunks that wait to be written.
const MAX_WAITING: usize = 1024;

/// A way to standard output or standard error.
#[derive(Debug, Clone)]
pub struct Output {
    chunks: mpsc::Sender<Chunk>,
    /// Lines that found no room since the writer last said so.
    dropped: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Chunk {
    bytes: Vec<u8>,
    written: Option<oneshot::Sender<()>>,
}

impl Output {
    /// Writes to `stream` from a task of its own, until every `Output` of it is
    /// dropped.
    pub fn new(stream: impl AsyncWrite + Send + Unpin + 'static) -> (Self, JoinHandle<()>) {
        let (sender, chunks) = mpsc::channel(MAX_WAITING);
        let output = Self {
            chunks: sender,
            dropped: Arc::default(),
        };
        let task = tokio::spawn(write_all(stream, chunks, Arc::clone(&output.dropped)));
        (output, task)
    }

    /// Writes whole lines and returns once they are out. A stream that fails is
    /// reported once; from then on everything counts as written, so that a
    /// closed pipe does not hold up the enclave.
    pub async fn write(&self, bytes: Vec<u8>) {
        let (written, done) = oneshot::channel();
        let chunk = Chunk {
            bytes,
            written: Some(written),
        };
        if self.chunks.send(chunk).await.is_ok() {
            let _ = done.await;
        }
    }

    /// Writes whole lines some time, or drops and counts them if too many wait
    /// already: for those who must not be held up.
    pub fn offer(&self, bytes: Vec<u8>) {
        let chunk = Chunk {
            bytes,
            written: None,
        };
        if self.chunks.try_send(chunk).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Writes whole lines, but waits no longer than `limit`.
    pub async fn write_within(&self, bytes: Vec<u8>, limit: Duration) {
        if timeout(limit, self.write(bytes)).await.is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until everything that was given so far is out, but no longer than
    /// `limit`.
    pub async fn flush(&self, limit: Duration) {
        // What does not get out in time is given up with the process.
        let _ = timeout(limit, self.write(Vec::new())).await;
    }
}

/// For `tracing`, which writes one whole event at a time and must not block.
impl io::Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.offer(bytes.to_vec());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

async fn write_all(
    mut stream: impl AsyncWrite + Unpin,
    mut chunks: mpsc::Receiver<Chunk>,
    dropped: Arc<AtomicU64>,
) {
    let mut broken = false;
    while let Some(chunk) = chunks.recv().await {
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            error!(lost, "lines were dropped because nobody read them in time");
        }
        if !broken {
            let result = match stream.write_all(&chunk.bytes).await {
                Ok(()) => stream.flush().await,
                Err(error) => Err(error),
            };
            if let Err(error) = result {
                error!(%error, "an output has failed: its lines are dropped from here on");
                broken = true;
            }
        }
        if let Some(written) = chunk.written {
            let _ = written.send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    #[tokio::test]
    async fn lines_come_out_in_order() {
        let (mut reader, writer) = tokio::io::duplex(4);
        let (output, task) = Output::new(writer);
        output.offer(b"one\n".to_vec());
        let writing = tokio::spawn(async move { output.write(b"two\n".to_vec()).await });
        let mut text = String::new();
        reader.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "one\ntwo\n");
        writing.await.unwrap();
        task.await.unwrap();
    }

    #[tokio::test]
    async fn a_closed_reader_holds_nobody_up() {
        let (reader, writer) = tokio::io::duplex(4);
        drop(reader);
        let (output, _task) = Output::new(writer);
        for _ in 0..2 * MAX_WAITING {
            output.write(b"a line that does not fit\n".to_vec()).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stuck_reader_is_given_up() {
        let (_reader, writer) = tokio::io::duplex(4);
        let (output, _task) = Output::new(writer);
        output
            .write_within(b"stuck for good\n".to_vec(), Duration::from_secs(1))
            .await;
        for _ in 0..MAX_WAITING {
            output.offer(b"waiting\n".to_vec());
        }
        let before = output.dropped.load(Ordering::Relaxed);
        output.offer(b"dropped\n".to_vec());
        assert_eq!(output.dropped.load(Ordering::Relaxed), before + 1);
        output.flush(Duration::from_secs(1)).await;
    }
}
