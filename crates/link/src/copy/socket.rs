//! Sockets, as far as two directions of a connection share them.

use std::future::poll_fn;
use std::io;
use std::os::fd::AsFd;
use std::task::{Context, Poll};

use rustix::io::Errno;
use rustix::net::sockopt::set_socket_linger;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::Stream;

/// A stream socket that tokio watches. One direction reads it, the other writes it.
pub trait Socket: AsFd + Send + Sync {
    /// Waits for bytes, an end or an error.
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    /// Waits for room.
    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    /// Does something to it that may find it not ready.
    fn try_io<R>(&self, interest: Interest, io: impl FnOnce() -> io::Result<R>) -> io::Result<R>;
    /// Most bytes that one write may have.
    fn max_write(&self) -> usize;
    /// Has its peer find a reset instead of an end, where the transport has one, however it
    /// comes to be closed: with this process, too.
    fn reset_on_close(&self);
    /// Has its peer find an end again.
    fn end_on_close(&self);
    /// Whether its peer takes nothing any more, where that shows without an error of the
    /// next read: it has closed the connection, or is gone.
    fn is_gone(&self) -> bool;
}

impl Socket for TcpStream {
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_read_ready(cx)
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_write_ready(cx)
    }

    fn try_io<R>(&self, interest: Interest, io: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
        self.try_io(interest, io)
    }

    fn max_write(&self) -> usize {
        usize::MAX
    }

    fn reset_on_close(&self) {
        // One that is gone already needs no reset.
        let _ = self.set_zero_linger();
    }

    fn end_on_close(&self) {
        let _ = set_socket_linger(self, None);
    }

    /// A peer that cuts a connection off resets it, which is an error of the next read.
    fn is_gone(&self) -> bool {
        false
    }
}

impl Socket for Stream {
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_read_ready(cx)
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_write_ready(cx)
    }

    fn try_io<R>(&self, interest: Interest, io: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
        self.try_io(interest, io)
    }

    fn max_write(&self) -> usize {
        self.max_write()
    }

    /// Neither vsock nor a Unix socket has one: see [`Side::check_end`](super::Side).
    fn reset_on_close(&self) {}

    fn end_on_close(&self) {}

    /// No byte is sent: whether one could be is known before.
    fn is_gone(&self) -> bool {
        matches!(
            send(self, &[], SendFlags::NOSIGNAL),
            Err(Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN)
        )
    }
}

/// What it has, once it has something; 0 at its end.
pub async fn read(socket: &impl Socket, buffer: &mut [u8]) -> io::Result<usize> {
    when_readable(socket, || {
        let (count, _) = recv(socket.as_fd(), &mut *buffer, RecvFlags::empty())?;
        // After a part of the buffer there is no more: asking again would only say so.
        let more = count == 0 || count == buffer.len();
        Ok(Done { count, more })
    })
    .await
}

/// Writes all of it.
pub async fn write_all(socket: &impl Socket, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let (part, _) = bytes.split_at(bytes.len().min(socket.max_write()));
        let count = when_writable(socket, || {
            let count = send(socket.as_fd(), part, SendFlags::NOSIGNAL)?;
            // Less was taken because there is room for no more.
            let more = count == part.len();
            Ok(Done { count, more })
        });
        bytes = bytes
            .get(count.await?..)
            .expect("no more is sent than was given");
    }
    Ok(())
}

/// What was read or written.
#[derive(Debug, Clone, Copy)]
pub struct Done {
    /// How many bytes.
    pub count: usize,
    /// Whether the socket may be ready for more.
    pub more: bool,
}

impl Done {
    /// So many bytes, and there may be more.
    pub fn with_more(count: usize) -> Self {
        Self { count, more: true }
    }
}

/// Reads, as soon as there is something.
pub async fn when_readable(
    socket: &impl Socket,
    mut io: impl FnMut() -> io::Result<Done>,
) -> io::Result<usize> {
    loop {
        poll_fn(|cx| socket.poll_read_ready(cx)).await?;
        if let Some(result) = attempt(socket, Interest::READABLE, &mut io) {
            return result;
        }
    }
}

/// Writes, as soon as there is room.
pub async fn when_writable(
    socket: &impl Socket,
    mut io: impl FnMut() -> io::Result<Done>,
) -> io::Result<usize> {
    loop {
        poll_fn(|cx| socket.poll_write_ready(cx)).await?;
        if let Some(result) = attempt(socket, Interest::WRITABLE, &mut io) {
            return result;
        }
    }
}

/// Tries it; `None` if it was too early. Where nothing more can be done, tokio is told
/// that the socket is not ready in the same step, lest it forget what comes meanwhile.
fn attempt(
    socket: &impl Socket,
    interest: Interest,
    io: &mut impl FnMut() -> io::Result<Done>,
) -> Option<io::Result<usize>> {
    let mut last = None;
    let result = socket.try_io(interest, || match io()? {
        Done { count, more: true } => Ok(count),
        Done { count, more: false } => {
            last = Some(count);
            Err(io::ErrorKind::WouldBlock.into())
        }
    });
    match (last, result) {
        (Some(count), _) => Some(Ok(count)),
        (None, Err(error)) if is_early(&error) => None,
        (None, result) => Some(result),
    }
}

fn is_early(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}
