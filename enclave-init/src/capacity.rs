//! What connections may take of the machine's memory, in the kernel and in the init,
//! whatever the peers do: so many of them, each with a receive buffer that is the
//! smaller the more there are, and a bound for TCP as a whole.
//!
//! A connection whose reader stands still keeps what its peer may send without being
//! read, which is the buffer of its vsock socket, and what TCP keeps on the other side.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use link::places::Place;
use link::target::{CONNECTION_BYTES, MAX_CONNECTIONS, connections};
use manifest::Network;
use nix::libc;

use crate::error::{Doing, InitError};

/// Beyond this much memory connections take no more.
const ENOUGH: u64 = 2 * 1024 * 1024 * 1024;
/// The part of the connections that may be ending, and how many at least.
const PART_ENDING: usize = 16;
const MIN_ENDING: usize = 16;
/// The part of the memory that TCP may take, those connections included that the
/// workload has with itself; the kernel's own bound is three times as high.
const PART_OF_TCP: u64 = 32;
/// The part that the receive buffers of one direction may take.
const PART_OF_BUFFERS: u64 = 64;
/// Of a receive buffer, the kernel takes these parts more than what may be in it: a
/// packet's description, 256 bytes, and an unused rest, for at most 3.6 KiB.
const OVERHEAD: (u64, u64) = (5, 4);
/// Receive buffers in bytes. Each of these sizes gets the same part of the room; the
/// largest is the kernel's own (`VSOCK_DEFAULT_BUFFER_MAX_SIZE`), and the least is what
/// connections have for which there is no room.
const BUFFERS: [u64; 3] = [256 * 1024, 64 * 1024, 16 * 1024];
const MIN_BUFFER: u64 = 4 * 1024;
/// `SO_VM_SOCKETS_BUFFER_SIZE` (`linux/vm_sockets.h`), in bytes as an `u64`.
const BUFFER_SIZE: libc::c_int = 0;
const PAGE: u64 = 4096;
const TCP_LIMITS: &str = "/proc/sys/net/ipv4/tcp_mem";

/// What connections may take, each way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Capacity {
    /// Connections at a time.
    pub(crate) places: usize,
    /// Bytes of all receive buffers together, beyond the smallest ones.
    buffers: u64,
    /// Bytes of all TCP sockets together.
    tcp: u64,
}

impl Capacity {
    /// For a machine with so many bytes of memory.
    pub(crate) fn new(memory: u64) -> Self {
        let memory = memory.min(ENOUGH);
        let (more, than) = OVERHEAD;
        Self {
            places: connections(memory),
            buffers: memory / PART_OF_BUFFERS / more * than,
            tcp: memory / PART_OF_TCP,
        }
    }

    /// For a simulated enclave, whose machine is not its own.
    pub(crate) fn simulated() -> Self {
        Self {
            places: MAX_CONNECTIONS,
            ..Self::new(ENOUGH)
        }
    }

    /// Places beyond these, for connections whose end is on its way. The agent's number
    /// is of all memory, and this one's of what the kernel leaves of it.
    pub(crate) fn ending(&self) -> usize {
        (self.places / PART_ENDING).max(MIN_ENDING)
    }

    /// The bytes that connections can take in all, in the directions that there are.
    pub(crate) fn bytes(&self, network: &Network) -> u64 {
        let directions = u64::from(network.has_egress()) + u64::from(!network.ingress.is_empty());
        let (more, than) = OVERHEAD;
        let places = (self.places + self.ending()) as u64 * CONNECTION_BYTES;
        let buffers = self.buffers / than * more;
        self.tcp + directions * (places + buffers)
    }

    /// Bounds what TCP takes, on a machine of its own. `/proc` must be mounted.
    pub(crate) fn limit_tcp(&self) -> Result<(), InitError> {
        let most = self.tcp / PAGE;
        // Windows stop growing at the second, and shrink from there to the third.
        let limits = format!("{} {} {most}", most / 2, most / 3 * 2);
        fs::write(TCP_LIMITS, &limits).doing(|| format!("writing {limits} to {TCP_LIMITS}"))
    }

    /// Gives a vsock connection the receive buffer of its place; other sockets keep
    /// theirs.
    pub(crate) fn apply<K: Eq + std::hash::Hash>(
        &self,
        stream: &link::Stream,
        place: &Place<K>,
    ) -> io::Result<()> {
        match stream {
            link::Stream::Vsock(_) => set_buffer(stream, self.buffer(place.rank())),
            link::Stream::Unix(_) => Ok(()),
        }
    }

    /// The receive buffer of the n-th connection that is there, in bytes. Of those that
    /// are there at any time, the n-th oldest was at least the n-th when it came, and
    /// later ones get no more, so that all together have no more than there is.
    fn buffer(&self, rank: usize) -> u64 {
        let mut before = rank.saturating_sub(1) as u64;
        let part = self.buffers / BUFFERS.len() as u64;
        for buffer in BUFFERS {
            match before.checked_sub(part / buffer) {
                None => return buffer,
                Some(beyond) => before = beyond,
            }
        }
        MIN_BUFFER
    }
}

/// Has connections to this listener begin with the smallest receive buffer: they wait to
/// be accepted without having a place.
pub(crate) fn begin_small(listener: &link::Listener) -> io::Result<()> {
    if listener.is_vsock() {
        set_buffer(listener, MIN_BUFFER)
    } else {
        Ok(())
    }
}

fn set_buffer(socket: &impl AsFd, bytes: u64) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<u64>()).unwrap_or_default();
    // SAFETY: the descriptor is borrowed, and the kernel reads `length` bytes from
    // `bytes`, which lives until the call has returned.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::AF_VSOCK,
            BUFFER_SIZE,
            (&raw const bytes).cast(),
            length,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1024 * 1024;

    fn network(ports: usize, names: usize) -> Network {
        let port = serde_json::json!({"port": 80, "to": 8080});
        serde_json::from_value(serde_json::json!({
            "ingress": vec![port; ports],
            "egress": vec!["peer.example:443"; names],
        }))
        .unwrap()
    }

    #[test]
    fn capacity_grows_with_the_memory() {
        for (memory, places, last) in [
            (128, 73, [2, 10, 44]),
            (256, 146, [4, 21, 89]),
            (1024, 585, [17, 85, 358]),
            (8192, MAX_CONNECTIONS, [34, 170, 716]),
        ] {
            let capacity = Capacity::new(memory * MIB);
            assert_eq!(capacity.places, places);
            for (rank, (buffer, next)) in last.into_iter().zip([
                (BUFFERS[0], BUFFERS[1]),
                (BUFFERS[1], BUFFERS[2]),
                (BUFFERS[2], MIN_BUFFER),
            ]) {
                assert_eq!(capacity.buffer(rank), buffer, "{memory} {rank}");
                assert_eq!(capacity.buffer(rank + 1), next, "{memory} {rank}");
            }
        }
    }

    #[test]
    fn capacity_is_for_the_directions_that_there_are() {
        let capacity = Capacity::new(256 * MIB);
        let [none, one, both] =
            [(0, 0), (1, 0), (1, 1)].map(|(ports, names)| capacity.bytes(&network(ports, names)));
        assert_eq!(none, 8 * MIB);
        assert_eq!(both - one, one - none);
        assert!(both <= 256 * MIB / 7, "{both}");
    }

    proptest! {
        /// Connections that come and go as they like.
        #[test]
        fn capacity_of_all_receive_buffers_is_kept(
            memory in 64 * MIB..8192 * MIB,
            comings in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 0..4000),
        ) {
            let capacity = Capacity::new(memory);
            let mut held: Vec<u64> = Vec::new();
            for (comes, index) in comings {
                if comes && held.len() < capacity.places {
                    held.push(capacity.buffer(held.len() + 1));
                } else if !held.is_empty() {
                    held.swap_remove(index.index(held.len()));
                }
                let beyond: u64 = held.iter().map(|bytes| bytes - MIN_BUFFER).sum();
                prop_assert!(beyond <= capacity.buffers);
            }
        }
    }
}
