//! The loopback interface: the only one that an enclave has.

use std::io;
use std::os::fd::AsRawFd;

use crate::error::{Doing, InitError};

/// The flags of a working interface, in the width that `ifreq` has (netdevice(7)).
const UP: i16 = {
    let flags = nix::libc::IFF_UP | nix::libc::IFF_RUNNING;
    assert!(flags <= i16::MAX as i32, "the flags fit an ifreq");
    #[expect(clippy::cast_possible_truncation, reason = "asserted above")]
    {
        flags as i16
    }
};

/// Brings `lo` up; the kernel gives it 127.0.0.0/8 then.
pub(crate) fn bring_up_loopback() -> Result<(), InitError> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").doing(|| "making a socket".to_owned())?;
    // SAFETY: `ifreq` is plain data, for which all zeros is a valid value.
    let mut request: nix::libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(*b"lo") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = UP;
    // SAFETY: the descriptor is open for the length of the call, and SIOCSIFFLAGS
    // reads an `ifreq` whose name and flags are set (netdevice(7)).
    let result = unsafe {
        nix::libc::ioctl(
            socket.as_raw_fd(),
            nix::libc::SIOCSIFFLAGS,
            &raw mut request,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error()).doing(|| "bringing the loopback interface up".to_owned())
    }
}
