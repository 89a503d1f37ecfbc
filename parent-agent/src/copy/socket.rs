//! Sockets, as far as two directions of a connection share them.

use std::future::poll_fn;
use std::io;
use std::os::fd::AsFd;
use std::task::{Context, Poll};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, Shutdown, recv, send, shutdown, sockopt};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// A stream socket that tokio watches. One direction reads it, the other writes it.
pub(crate) trait Socket: AsFd + Sync {
    /// Waits for bytes, an end or an error.
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    /// Waits for room.
    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    /// Does something to it that may find it not ready.
    fn try_io<R>(&self, interest: Interest, io: impl FnOnce() -> io::Result<R>) -> io::Result<R>;
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
}

impl Socket for link::Stream {
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_read_ready(cx)
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_write_ready(cx)
    }

    fn try_io<R>(&self, interest: Interest, io: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
        self.try_io(interest, io)
    }
}

/// What it has, once it has something; 0 at its end.
pub(super) async fn read(socket: &impl Socket, buffer: &mut [u8]) -> io::Result<usize> {
    when_readable(socket, || {
        let (count, _) = recv(socket.as_fd(), &mut *buffer, RecvFlags::empty())?;
        // After a part of the buffer there is no more: asking again would only say so.
        let more = count == 0 || count == buffer.len();
        Ok(Done { count, more })
    })
    .await
}

/// Writes all of it.
pub(super) async fn write_all(socket: &impl Socket, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let count = when_writable(socket, || {
            let count = send(socket.as_fd(), bytes, SendFlags::NOSIGNAL)?;
            // A part was taken because there is room for no more.
            let more = count == bytes.len();
            Ok(Done { count, more })
        });
        bytes = bytes.get(count.await?..).unwrap_or_default();
    }
    Ok(())
}

/// Tells its peer that nothing more comes.
pub(super) fn end(socket: &impl Socket) -> io::Result<()> {
    match shutdown(socket.as_fd(), Shutdown::Write) {
        // The peer has closed both ways already.
        Ok(()) | Err(rustix::io::Errno::NOTCONN) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// What was read or written.
pub(super) struct Done {
    pub(super) count: usize,
    /// Whether the socket may be ready for more.
    pub(super) more: bool,
}

impl Done {
    pub(super) fn with_more(count: usize) -> Self {
        Self { count, more: true }
    }
}

/// Reads, as soon as there is something.
pub(super) async fn when_readable(
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
pub(super) async fn when_writable(
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

/// Whether it is one of those that the kernel passes pages on from and to: over vsock
/// it copies them.
pub(super) fn passes_pages(socket: &impl Socket) -> bool {
    sockopt::socket_domain(socket.as_fd()).is_ok_and(|family| family != AddressFamily::VSOCK)
}
