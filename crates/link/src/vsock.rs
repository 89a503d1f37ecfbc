//! A connected `AF_VSOCK` socket over tokio.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;

use tokio::net::UnixStream;

use crate::port;

/// Most bytes of one write to the host of an ordinary virtual machine. Linux makes a
/// larger one a packet of several parts, and `vhost-device-vsock` 0.3, QEMU's device,
/// loses those.
const MAX_WRITE_TO_HOST: usize = 28 * 1024;
/// The same to any other peer: newer kernels corrupt larger ones on Nitro.
const MAX_WRITE: usize = 32 * 1024;

/// A connection over `AF_VSOCK`.
#[derive(Debug)]
pub struct Vsock {
    /// tokio has no vsock sockets, and that of `tokio-vsock` tells nobody whether it is
    /// ready. Of this one only what all stream sockets have in common is used.
    pub(crate) socket: UnixStream,
    pub(crate) max_write: usize,
}

impl Vsock {
    /// A connected socket that does not block, to this context identifier.
    pub(crate) fn new(socket: OwnedFd, peer: u32) -> io::Result<Self> {
        let max_write = if peer == port::HOST_CID {
            MAX_WRITE_TO_HOST
        } else {
            MAX_WRITE
        };
        let socket = UnixStream::from_std(StdUnixStream::from(socket))?;
        Ok(Self { socket, max_write })
    }
}

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, recv, socketpair};
    use tokio::io::{AsyncWriteExt, Interest};

    use super::*;
    use crate::{Stream, copy};

    /// Context identifiers of an enclave, and of its parent as an enclave has it.
    const ENCLAVE: u32 = 16;
    const PARENT: u32 = 3;

    /// A connection to this peer whose other end tells one write from the next.
    fn connection(peer: u32) -> (Stream, UnixStream) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (own, other) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        let other = UnixStream::from_std(other.into()).unwrap();
        (Stream::Vsock(Vsock::new(own, peer).unwrap()), other)
    }

    /// The sizes of all writes, up to the end.
    async fn sizes(other: UnixStream) -> Vec<usize> {
        let mut sizes = Vec::new();
        let mut buffer = vec![0; 2 << 20];
        loop {
            other.readable().await.unwrap();
            let read = other.try_io(Interest::READABLE, || {
                let (count, _) = recv(&other, &mut *buffer, RecvFlags::empty())?;
                Ok(count)
            });
            match read {
                Ok(0) => return sizes,
                Ok(count) => sizes.push(count),
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        }
    }

    #[tokio::test]
    async fn vsock_writes_are_bounded_whoever_the_peer_is() {
        let data = vec![7; 1_000_000];
        for (peer, most) in [
            (ENCLAVE, 32 * 1024),
            (PARENT, 32 * 1024),
            (port::HOST_CID, 28 * 1024),
        ] {
            for shared in [true, false] {
                let (mut stream, other) = connection(peer);
                let reading = tokio::spawn(sizes(other));
                if shared {
                    copy::write_all(&stream, &data).await.unwrap();
                } else {
                    let parts = [io::IoSlice::new(&data), io::IoSlice::new(&data)];
                    let count = stream.write_vectored(&parts).await.unwrap();
                    stream.write_all(&data[count..]).await.unwrap();
                }
                drop(stream);
                let sizes = reading.await.unwrap();
                assert_eq!(sizes.iter().sum::<usize>(), data.len());
                assert_eq!(sizes.iter().max(), Some(&most), "{peer} {shared}");
            }
        }
    }
}
