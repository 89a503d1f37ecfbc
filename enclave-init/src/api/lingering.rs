//! Connections that are closed in such a way that what was answered arrives.
//!
//! A request may be refused before all of it has been read. The kernel breaks a connection off
//! that is closed with unread bytes in it: whoever is still sending gets an error in place of
//! the reason (RFC 9112, section 9.6). So the answer's end is sent first, and what else arrives
//! is read for a while and thrown away.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// How long it is read at most.
const LINGER: Duration = Duration::from_secs(1);
/// The most that is read, in bytes: many times what any request may have.
const MAX_DISCARDED: usize = 1024 * 1024;
/// Read at a time, in bytes.
const PART: usize = 4096;

/// A connection, until it is shut down and its other end has closed it.
#[derive(Debug)]
pub(super) struct Lingering<S> {
    stream: S,
    state: State,
}

#[derive(Debug)]
enum State {
    Open,
    Discarding { end: Pin<Box<Sleep>>, left: usize },
    Closed,
}

impl<S> Lingering<S> {
    pub(super) const fn new(stream: S) -> Self {
        Self {
            stream,
            state: State::Open,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lingering<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lingering<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, state } = self.get_mut();
        loop {
            match state {
                State::Open => {
                    ready!(Pin::new(&mut *stream).poll_shutdown(context))?;
                    *state = State::Discarding {
                        end: Box::pin(sleep(LINGER)),
                        left: MAX_DISCARDED,
                    };
                }
                State::Discarding { end, left } => {
                    if end.as_mut().poll(context).is_ready() {
                        *state = State::Closed;
                        continue;
                    }
                    let mut part = [0; PART];
                    let mut part = ReadBuf::new(&mut part);
                    let read = ready!(Pin::new(&mut *stream).poll_read(context, &mut part));
                    *left = left.saturating_sub(part.filled().len());
                    if read.is_err() || part.filled().is_empty() || *left == 0 {
                        *state = State::Closed;
                    }
                }
                State::Closed => return Poll::Ready(Ok(())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::time::{Instant, timeout};

    use super::*;

    /// A connection that is being shut down, and its other end.
    fn shut_down() -> (tokio::task::JoinHandle<io::Result<()>>, DuplexStream) {
        let (ours, theirs) = duplex(64);
        let mut ours = Lingering::new(ours);
        let closing = tokio::spawn(async move {
            ours.write_all(b"refused").await?;
            ours.shutdown().await
        });
        (closing, theirs)
    }

    #[tokio::test(start_paused = true)]
    async fn local_api_answers_arrive_at_whoever_is_still_sending() {
        let (closing, mut theirs) = shut_down();
        // More than the connection holds.
        theirs.write_all(&vec![b'x'; 10 * PART]).await.unwrap();
        let mut answer = String::new();
        theirs.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "refused");
        drop(theirs);
        closing.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn local_api_connections_are_closed_in_the_end_whatever_is_sent() {
        let (closing, mut theirs) = shut_down();
        let begun = Instant::now();
        closing.await.unwrap().unwrap();
        assert_eq!(begun.elapsed(), LINGER);
        assert!(theirs.write_all(b"x").await.is_err());

        let (closing, mut theirs) = shut_down();
        let endless = vec![b'x'; 2 * MAX_DISCARDED];
        let sending = theirs.write_all(&endless);
        assert!(timeout(LINGER / 2, sending).await.unwrap().is_err());
        closing.await.unwrap().unwrap();
    }
}
