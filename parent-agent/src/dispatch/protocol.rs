//! What agents and dispatcher say to each other: one message in each direction,
//! then a message with a descriptor for each connection. The socket keeps
//! messages apart (`SOCK_SEQPACKET`).

use std::fs;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream};
use std::path::Path;

use rustix::cmsg_space;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, bind, connect,
    listen, recv, recvmsg, send, sendmsg, socket_with, sockopt,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::net::{UnixListener, UnixStream};

/// The version of the messages.
pub(super) const VERSION: u32 = 1;
/// Longest message, in bytes.
const MAX_MESSAGE: usize = 1024;
/// What goes with a descriptor, which cannot be sent alone.
const CONNECTION: &[u8] = b"c";
const FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

/// An agent wants the connections of an enclave to a port.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Register {
    pub(super) version: u32,
    pub(super) cid: u32,
    pub(super) port: u32,
}

/// What it is told.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    /// It gets them from now on.
    Registered,
    /// It does not.
    Refused { reason: String },
}

/// One end of a connection between agent and dispatcher.
#[derive(Debug)]
pub(super) struct Socket(UnixStream);

impl Socket {
    /// Connects, if there is room in the listener's queue.
    pub(super) fn connect(path: &Path) -> io::Result<Self> {
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, FLAGS, None)?;
        connect(&socket, &SocketAddrUnix::new(path)?)?;
        UnixStream::from_std(StdUnixStream::from(socket)).map(Self)
    }

    /// Whether the other end is this user's or root's.
    pub(super) fn is_trusted(&self) -> io::Result<bool> {
        let peer = sockopt::socket_peercred(&self.0)?.uid;
        Ok(peer.is_root() || peer.as_raw() == nix::unistd::geteuid().as_raw())
    }

    /// Sends a message if there is room for it.
    pub(super) fn try_send(&self, message: &impl Serialize) -> io::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        send(&self.0, &bytes, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Passes a descriptor on if there is room for it.
    pub(super) fn try_pass(&self, descriptor: BorrowedFd<'_>) -> io::Result<()> {
        let descriptors = [descriptor];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
        let bytes = [IoSlice::new(CONNECTION)];
        sendmsg(&self.0, &bytes, &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// The next message; none once the other end is closed.
    pub(super) async fn receive<T: DeserializeOwned>(&self) -> io::Result<Option<T>> {
        let mut bytes = [0; MAX_MESSAGE];
        let read = || {
            let (count, _) = recv(&self.0, &mut bytes, RecvFlags::empty())?;
            Ok(count)
        };
        let count = self.0.async_io(Interest::READABLE, read).await?;
        match bytes.get(..count) {
            None | Some([]) => Ok(None),
            Some(message) => Ok(Some(serde_json::from_slice(message)?)),
        }
    }

    /// The next connection; none once the other end is closed. Cancellation safe.
    pub(super) async fn receive_connection(&self) -> io::Result<Option<OwnedFd>> {
        let take = || take(&self.0);
        self.0.async_io(Interest::READABLE, take).await
    }

    /// Whether the other end is closed.
    pub(super) fn is_closed(&self) -> bool {
        let mut byte = [0; 1];
        let peeked = recv(&self.0, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT);
        !matches!(peeked, Ok((1.., _)) | Err(Errno::AGAIN | Errno::INTR))
    }
}

/// Reads one message, and takes the descriptor that comes with it.
fn take(socket: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let mut byte = [0; CONNECTION.len()];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = [IoSliceMut::new(&mut byte)];
    let message = recvmsg(socket, &mut bytes, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    if message.bytes == 0 {
        return Ok(None);
    }
    let mut descriptors = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    match descriptors.next().and_then(|mut found| found.next()) {
        Some(descriptor) => Ok(Some(descriptor)),
        // The kernel drops it where there is no number left for it.
        None => Err(io::Error::other(
            "a connection was lost: this process has too many descriptors open",
        )),
    }
}

/// Where agents connect.
#[derive(Debug)]
pub(super) struct SocketListener(UnixListener);

impl SocketListener {
    /// Listens at `path`, in place of what an earlier process has left there. The
    /// file is put there once it listens: an agent that finds it is not refused, and
    /// one that comes while it is replaced does not take the instance for one without
    /// a dispatcher.
    pub(super) fn bind(path: &Path, backlog: i32) -> io::Result<Self> {
        let beside = path.with_extension("new");
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, FLAGS, None)?;
        bind(&socket, &SocketAddrUnix::new(&beside)?)?;
        listen(&socket, backlog)?;
        fs::rename(&beside, path)?;
        UnixListener::from_std(StdUnixListener::from(socket)).map(Self)
    }

    /// The next connection. Cancellation safe.
    pub(super) async fn accept(&self) -> io::Result<Socket> {
        let (accepted, _) = self.0.accept().await?;
        Ok(Socket(accepted))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use super::*;

    #[tokio::test]
    async fn dispatch_socket_that_is_there_listens_also_while_it_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dispatch.sock");
        let mut listeners = vec![SocketListener::bind(&path, 4096).unwrap()];
        let ended = AtomicBool::new(false);
        thread::scope(|scope| {
            let agents = scope.spawn(|| {
                let mut connected = 0;
                while !ended.load(Ordering::Relaxed) {
                    let socket =
                        socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, FLAGS, None);
                    let agent = connect(socket.unwrap(), &SocketAddrUnix::new(&path).unwrap());
                    // One that has many waiting says so.
                    assert!(matches!(agent, Ok(()) | Err(Errno::AGAIN)), "{agent:?}");
                    connected += 1;
                }
                connected
            });
            for _ in 0..500 {
                listeners.push(SocketListener::bind(&path, 4096).unwrap());
            }
            ended.store(true, Ordering::Relaxed);
            assert!(agents.join().unwrap() > 0);
        });
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
