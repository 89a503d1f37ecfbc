//! One side of a joined connection, and how it ends.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;
use rustix::net::{Shutdown, shutdown};

use super::Socket;

/// One side of a joined connection. Until it was told that nothing more comes, closing it
/// is a reset, whatever the reason: the end of the enclave, or of this process.
///
/// Neither vsock nor a Unix socket has a reset. Between the two programs a connection that
/// was cut off is one that was closed while the other program had not ended its own
/// direction: a program closes in order only what has ended both ways.
#[derive(Debug)]
pub struct Side<S> {
    socket: S,
    /// Whether it was told that nothing more comes.
    is_ended: AtomicBool,
}

impl<S: Socket> Side<S> {
    /// This side, open both ways.
    pub fn new(socket: S) -> Self {
        socket.reset_on_close();
        Self {
            socket,
            is_ended: AtomicBool::new(false),
        }
    }

    /// Its socket.
    pub fn socket(&self) -> &S {
        &self.socket
    }

    /// Tells it that nothing more comes.
    pub fn end(&self) -> io::Result<()> {
        self.is_ended.store(true, Ordering::Relaxed);
        self.socket.end_on_close();
        match shutdown(&self.socket, Shutdown::Write) {
            // The peer has closed both ways already.
            Ok(()) | Err(Errno::NOTCONN) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the end of what it sends, which was just read, is one, or the connection was
    /// cut off. Where it was told itself that nothing more comes, the two look the same.
    pub fn check_end(&self) -> io::Result<()> {
        if self.is_ended.load(Ordering::Relaxed) || !self.socket.is_gone() {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::ConnectionReset,
            "it was closed before it had ended both ways",
        ))
    }
}
