//! Listening on and connecting to an [`Endpoint`] over tokio.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::net::listen;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{sleep, timeout};
use tokio_vsock::{VMADDR_CID_ANY, VsockAddr, VsockListener, VsockStream};

use crate::Endpoint;
use crate::vsock::Vsock;

/// Longest answer to `CONNECT`, in bytes: `OK 4294967295\n`.
const MAX_CONNECT_ANSWER: usize = 14;
/// Connections that wait to be accepted, at most. Of a burst that is longer, vsock
/// resets the rest.
const BACKLOG: i32 = 1024;
/// How long to wait for room in a listener's queue.
const QUEUE_PAUSE: Duration = Duration::from_millis(5);

/// A connection on any transport.
#[derive(Debug)]
pub enum Stream {
    /// Over `AF_VSOCK`.
    Vsock(Vsock),
    /// Over a Unix socket.
    Unix(UnixStream),
}

impl Stream {
    /// The connection that a stream socket of either transport is, as another
    /// process has passed it on.
    pub fn from_descriptor(descriptor: OwnedFd) -> io::Result<Self> {
        let stream = StdUnixStream::from(descriptor);
        if stream.local_addr().is_ok() {
            stream.set_nonblocking(true)?;
            return UnixStream::from_std(stream).map(Self::Unix);
        }
        let stream = vsock::VsockStream::from(OwnedFd::from(stream));
        let peer = stream.peer_addr()?.cid();
        stream.set_nonblocking(true)?;
        Vsock::new(stream.into(), peer).map(Self::Vsock)
    }

    /// Waits for bytes, or an end, or an error; see [`UnixStream::poll_read_ready`].
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket().poll_read_ready(cx)
    }

    /// Waits for room to write; see [`UnixStream::poll_write_ready`].
    pub fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket().poll_write_ready(cx)
    }

    /// Does something to the socket itself; see [`UnixStream::try_io`].
    pub fn try_io<R>(
        &self,
        interest: Interest,
        io: impl FnOnce() -> io::Result<R>,
    ) -> io::Result<R> {
        self.socket().try_io(interest, io)
    }

    /// Most bytes that one write may have.
    pub(crate) fn max_write(&self) -> usize {
        match self {
            Self::Vsock(vsock) => vsock.max_write,
            Self::Unix(_) => usize::MAX,
        }
    }

    fn socket(&self) -> &UnixStream {
        match self {
            Self::Vsock(vsock) => &vsock.socket,
            Self::Unix(socket) => socket,
        }
    }

    fn socket_mut(&mut self) -> Pin<&mut UnixStream> {
        Pin::new(match self {
            Self::Vsock(vsock) => &mut vsock.socket,
            Self::Unix(socket) => socket,
        })
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket().as_fd()
    }
}

/// A listening socket on any transport that can listen. A Unix socket's file is
/// removed when the listener is dropped.
#[derive(Debug)]
pub struct Listener(Inner);

#[derive(Debug)]
enum Inner {
    Vsock(VsockListener),
    Unix {
        listener: UnixListener,
        path: PathBuf,
    },
}

impl Listener {
    /// Listens on `endpoint`. On vsock every context identifier of this machine
    /// is served: the endpoint's own is not looked at.
    pub fn bind(endpoint: &Endpoint) -> io::Result<Self> {
        match endpoint {
            Endpoint::Vsock { port, .. } => {
                let listener = VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, *port))?;
                listen(&listener, BACKLOG)?;
                Ok(Self(Inner::Vsock(listener)))
            }
            Endpoint::Unix { path } => {
                let listener = UnixListener::bind(path)?;
                listen(&listener, BACKLOG)?;
                let path = path.clone();
                Ok(Self(Inner::Unix { listener, path }))
            }
            Endpoint::UnixConnect { .. } => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "a port behind a multiplexing socket can be connected to, not listened on",
            )),
        }
    }

    /// The next connection, and the peer's context identifier where the
    /// transport has one. Cancellation safe.
    pub async fn accept(&self) -> io::Result<(Stream, Option<u32>)> {
        match &self.0 {
            Inner::Vsock(listener) => {
                let (stream, peer) = listener.accept().await?;
                let peer = peer.cid();
                Ok((Stream::Vsock(Vsock::new(stream.into(), peer)?), Some(peer)))
            }
            Inner::Unix { listener, .. } => {
                let (stream, _) = listener.accept().await?;
                Ok((Stream::Unix(stream), None))
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Inner::Unix { path, .. } = &self.0 {
            // Nothing can be done about a file that is gone already.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Connects to `endpoint`, all hand-shakes included, within `limit`. Errors name
/// the endpoint.
pub async fn connect(endpoint: &Endpoint, limit: Duration) -> io::Result<Stream> {
    let connecting = async {
        match endpoint {
            Endpoint::Vsock { cid, port } => {
                let stream = VsockStream::connect(VsockAddr::new(*cid, *port)).await?;
                Vsock::new(stream.into(), *cid).map(Stream::Vsock)
            }
            Endpoint::Unix { path } => connect_unix(path).await.map(Stream::Unix),
            Endpoint::UnixConnect { path, port } => {
                let mut stream = connect_unix(path).await?;
                request_port(&mut stream, *port).await?;
                Ok(Stream::Unix(stream))
            }
        }
    };
    match timeout(limit, connecting).await {
        Ok(result) => result.map_err(|error| {
            let text = format!("cannot connect to {endpoint}: {error}");
            io::Error::new(error.kind(), text)
        }),
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("{endpoint} did not answer within {limit:?}"),
        )),
    }
}

/// Connects, and waits while the listener's queue is full: for a Unix socket
/// that does not block, the kernel reports that as an error (`unix(7)`, `EAGAIN`).
async fn connect_unix(path: &Path) -> io::Result<UnixStream> {
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(QUEUE_PAUSE).await,
            result => return result,
        }
    }
}

/// Asks a multiplexing socket for a port of its virtual machine. The answer is
/// read byte by byte: what follows it belongs to the connection.
async fn request_port(stream: &mut UnixStream, port: u32) -> io::Result<()> {
    let exchange = async {
        let request = format!("CONNECT {port}\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::with_capacity(MAX_CONNECT_ANSWER);
        while answer.len() < MAX_CONNECT_ANSWER && answer.last() != Some(&b'\n') {
            answer.push(stream.read_u8().await?);
        }
        Ok(answer)
    };
    let answer = exchange
        .await
        .map_err(|error: io::Error| match error.kind() {
            // The multiplexer closes the connection when nothing in the machine listens.
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe => io::Error::new(
                io::ErrorKind::ConnectionRefused,
                format!("nothing listens on port {port} in the enclave"),
            ),
            _ => error,
        })?;
    let port = answer
        .strip_prefix(b"OK ")
        .and_then(|rest| rest.strip_suffix(b"\n"));
    match port {
        Some(port) if !port.is_empty() && port.iter().all(u8::is_ascii_digit) => Ok(()),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!(
                "unexpected answer to CONNECT: {:?}",
                String::from_utf8_lossy(&answer)
            ),
        )),
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.get_mut().socket_mut().poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let (part, _) = buf.split_at(buf.len().min(self.max_write()));
        self.get_mut().socket_mut().poll_write(cx, part)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().socket_mut().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().socket_mut().poll_shutdown(cx)
    }
}
