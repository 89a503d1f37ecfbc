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
