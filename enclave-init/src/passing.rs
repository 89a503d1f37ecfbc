//! Descriptors that come with what the workload writes to the init's Unix sockets.
//!
//! Nothing here has a use for them, but any process may pass some (`unix(7)`), and what is
//! received without room for them the kernel closes at once, in the thread that receives. The
//! last descriptor of a TCP connection may be among them, and closing that takes as long as
//! its `SO_LINGER` says. The init has one thread for everything. So it receives descriptors,
//! and another thread closes them, and the connections in which some may still be waiting.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use nix::errno::Errno;
use nix::libc::{self, c_int};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

/// The most descriptors that come at a time (`SCM_MAX_FD`, unix(7)).
const MAX_DESCRIPTORS: usize = 253;
/// Room for them and for the header before them, in words.
const CONTROL_WORDS: usize = (MAX_DESCRIPTORS * size_of::<c_int>() + 64) / size_of::<u64>();
/// The closing thread calls nothing that needs more, in bytes.
const CLOSING_STACK: usize = 64 * 1024;

/// Starts a thread that drops what it is given, of which at most so many things wait.
pub(crate) fn closing<T: Send + 'static>(places: usize) -> io::Result<mpsc::Sender<T>> {
    let (sender, mut given) = mpsc::channel::<T>(places);
    std::thread::Builder::new()
        .name("closing".to_owned())
        .stack_size(CLOSING_STACK)
        .spawn(move || while given.blocking_recv().is_some() {})?;
    Ok(sender)
}

/// Receives bytes from a Unix socket that does not block, and the descriptors with them.
pub(crate) fn receive(
    socket: BorrowedFd<'_>,
    bytes: &mut [u8],
) -> io::Result<(usize, Vec<OwnedFd>)> {
    // Words, as the headers in it are aligned.
    let mut control = [0_u64; CONTROL_WORDS];
    let mut part = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: a header of zeroes is one of an empty message.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(&control);
    // SAFETY: the header names two buffers with their lengths, which outlive the call.
    let received =
        unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, libc::MSG_CMSG_CLOEXEC) };
    let length = Errno::result(received)?;
    let mut passed = Vec::new();
    // SAFETY: the kernel has filled the control buffer, and set its length, as these macros
    // want it; the descriptors in it are new ones of this process, and nobody else's.
    unsafe {
        let mut message = libc::CMSG_FIRSTHDR(&raw const header);
        while let Some(found) = message.as_ref() {
            if (found.cmsg_level, found.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
                let data = libc::CMSG_DATA(message);
                let end = message.cast::<u8>().add(found.cmsg_len);
                let mut at = data;
                while at < end {
                    let descriptor = at.cast::<c_int>().read_unaligned();
                    passed.push(OwnedFd::from_raw_fd(descriptor));
                    at = at.add(size_of::<c_int>());
                }
            }
            message = libc::CMSG_NXTHDR(&raw const header, message);
        }
    }
    let length = usize::try_from(length).expect("the kernel counts up from 0");
    Ok((length, passed))
}

/// A stream of the workload's that ends when a descriptor is passed over it.
#[derive(Debug)]
pub(crate) struct Connection {
    /// Until it is closed.
    held: Option<Held>,
    closing: mpsc::Sender<Held>,
}

/// What is closed on the other thread.
#[derive(Debug)]
pub(crate) struct Held {
    stream: UnixStream,
    passed: Vec<OwnedFd>,
    /// Given back only then, so that there are no more of these than places.
    _place: OwnedSemaphorePermit,
}

impl Connection {
    /// A thread to close with has as many places as `place` is one of.
    pub(crate) fn new(
        stream: UnixStream,
        place: OwnedSemaphorePermit,
        closing: mpsc::Sender<Held>,
    ) -> Self {
        Self {
            held: Some(Held {
                stream,
                passed: Vec::new(),
                _place: place,
            }),
            closing,
        }
    }

    fn held(&mut self) -> &mut Held {
        self.held.as_mut().expect("only a drop takes it")
    }

    fn stream(self: Pin<&mut Self>) -> Pin<&mut UnixStream> {
        Pin::new(&mut self.get_mut().held().stream)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(held) = self.held.take() {
            // There is room: what waits there has a place.
            let _ = self.closing.try_send(held);
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Held { stream, passed, .. } = self.get_mut().held();
        loop {
            ready!(stream.poll_read_ready(context))?;
            let bytes = buffer.initialize_unfilled();
            match stream.try_io(Interest::READABLE, || receive(stream.as_fd(), bytes)) {
                Ok((length, descriptors)) if descriptors.is_empty() => {
                    buffer.advance(length);
                    return Poll::Ready(Ok(()));
                }
                Ok((_, descriptors)) => {
                    *passed = descriptors;
                    let reason = "a descriptor was passed";
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, reason)));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.stream().poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::IoSlice;
    use std::os::unix::net::UnixDatagram;

    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

    use super::*;

    #[test]
    fn passed_descriptors_are_received_all_and_owned() {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.send(b"plain").unwrap();
        let file = File::open("/dev/null").unwrap();
        for count in [1, MAX_DESCRIPTORS] {
            let descriptors = vec![file.as_raw_fd(); count];
            let rights = [ControlMessage::ScmRights(&descriptors)];
            let (part, flags) = ([IoSlice::new(b"x")], MsgFlags::empty());
            sendmsg::<()>(theirs.as_raw_fd(), &part, &rights, flags, None).unwrap();
        }
        let mut bytes = [0; 8];
        let (length, passed) = receive(ours.as_fd(), &mut bytes).unwrap();
        assert_eq!((&bytes[..length], passed.len()), (&b"plain"[..], 0));
        for count in [1, MAX_DESCRIPTORS] {
            let (length, passed) = receive(ours.as_fd(), &mut bytes).unwrap();
            assert_eq!((length, passed.len()), (1, count));
        }
        let error = receive(ours.as_fd(), &mut bytes).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
}
