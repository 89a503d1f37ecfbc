//! Listening on and connecting to an [`Endpoint`] over tokio.

use std::io;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;
use tokio_vsock::{VMADDR_CID_ANY, VsockAddr, VsockListener, VsockStream};

use crate::Endpoint;

/// Longest answer to `CONNECT`, in bytes: `OK 4294967295\n`.
const MAX_CONNECT_ANSWER: usize = 14;

/// A connection on any transport.
#[derive(Debug)]
pub enum Stream {
    /// Over `AF_VSOCK`.
    Vsock(VsockStream),
    /// Over a Unix socket.
    Unix(UnixStream),
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
                VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, *port))
                    .map(|listener| Self(Inner::Vsock(listener)))
            }
            Endpoint::Unix { path } => {
                let listener = StdUnixListener::bind(path)?;
                listener.set_nonblocking(true)?;
                Ok(Self(Inner::Unix {
                    listener: UnixListener::from_std(listener)?,
                    path: path.clone(),
                }))
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
                Ok((Stream::Vsock(stream), Some(peer.cid())))
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

/// Connects to `endpoint`, all hand-shakes included, within `limit`.
pub async fn connect(endpoint: &Endpoint, limit: Duration) -> io::Result<Stream> {
    timeout(limit, async {
        match endpoint {
            Endpoint::Vsock { cid, port } => VsockStream::connect(VsockAddr::new(*cid, *port))
                .await
                .map(Stream::Vsock),
            Endpoint::Unix { path } => UnixStream::connect(path).await.map(Stream::Unix),
            Endpoint::UnixConnect { path, port } => {
                let mut stream = UnixStream::connect(path).await?;
                request_port(&mut stream, *port).await?;
                Ok(Stream::Unix(stream))
            }
        }
    })
    .await
    .unwrap_or_else(|_| {
        Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("{endpoint} did not answer within {limit:?}"),
        ))
    })
}

/// Asks a multiplexing socket for a port of its virtual machine. The answer is
/// read byte by byte: what follows it belongs to the connection.
async fn request_port(stream: &mut UnixStream, port: u32) -> io::Result<()> {
    stream
        .write_all(format!("CONNECT {port}\n").as_bytes())
        .await?;
    let mut answer = Vec::with_capacity(MAX_CONNECT_ANSWER);
    while answer.last() != Some(&b'\n') {
        if answer.len() == MAX_CONNECT_ANSWER {
            return Err(invalid_answer(&answer));
        }
        match stream.read_u8().await {
            Ok(byte) => answer.push(byte),
            // The multiplexer closes the connection when nothing in the machine listens.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(io::Error::new(
                    io::ErrorKind::ConnectionRefused,
                    format!("nothing listens on port {port} in the enclave"),
                ));
            }
            Err(error) => return Err(error),
        }
    }
    if answer.starts_with(b"OK ") {
        Ok(())
    } else {
        Err(invalid_answer(&answer))
    }
}

fn invalid_answer(answer: &[u8]) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!(
            "unexpected answer to CONNECT: {:?}",
            String::from_utf8_lossy(answer)
        ),
    )
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Vsock(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Vsock(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Vsock(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Vsock(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
