//! A connection that takes its time to close, handed to somebody else.

use std::io::{ErrorKind, IoSlice, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};

use nix::libc;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg, setsockopt, sockopt};

/// Passes such a connection to the init: over the socket for `notify`, or over the local API's,
/// in the middle of a request (`api`) or after one (`api-later`). The other end stays here.
pub(crate) fn linger(how: &str) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut lingering = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (other, _) = listener.accept().unwrap();
    std::mem::forget(other);
    lingering.set_nonblocking(true).unwrap();
    let full = loop {
        if let Err(error) = lingering.write(&[0; 4096]) {
            break error;
        }
    };
    assert_eq!(full.kind(), ErrorKind::WouldBlock);
    let hour = libc::linger {
        l_onoff: 1,
        l_linger: 3600,
    };
    setsockopt(&lingering, sockopt::Linger, &hour).unwrap();
    if how == "notify" {
        let socket = UnixDatagram::unbound().unwrap();
        socket.connect("/run/enclave/notify.sock").unwrap();
        pass(&OwnedFd::from(socket), b"STATUS=x", lingering);
        return;
    }
    let mut stream = UnixStream::connect("/run/enclave/api.sock").unwrap();
    let request = b"GET /v1/random?bytes=1 HTTP/1.1\r\nEnclave-Api: 1\r\n";
    stream.write_all(request).unwrap();
    if how == "api-later" {
        stream.write_all(b"\r\n").unwrap();
    }
    pass(&OwnedFd::from(stream), b"x", lingering);
}

/// Sends a descriptor, and keeps none.
fn pass(socket: &OwnedFd, bytes: &[u8], lingering: TcpStream) {
    let descriptors = [lingering.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&descriptors)];
    let (part, flags) = ([IoSlice::new(bytes)], MsgFlags::MSG_NOSIGNAL);
    // The init may have closed its end already.
    let sent = sendmsg::<()>(socket.as_raw_fd(), &part, &rights, flags, None);
    println!("passed {}", sent.is_ok());
    // If the init has closed it already, this is the last reference, whose closing lingers.
    std::thread::spawn(move || drop(lingering));
}
