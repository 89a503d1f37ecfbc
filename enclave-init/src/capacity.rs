//! What connections may take of the machine's memory, in the kernel and in the init,
//! whatever the peers do: so many of them, room for what a number of them receive, and
//! bounds for TCP and UDP as a whole.
//!
//! A connection whose reader stands still keeps what its peer may send without being
//! read, which is the buffer of its vsock socket, 256 KiB
//! (`VSOCK_DEFAULT_BUFFER_SIZE`), and what TCP keeps on the other side.

use std::fs;

use link::target::{CONNECTION_BYTES, MAX_CONNECTIONS, connections};
use manifest::Network;

use crate::error::{Doing, InitError};

/// Beyond this much memory connections take no more.
const ENOUGH: u64 = 2 * 1024 * 1024 * 1024;
/// The part of the connections that may be ending, and how many at least.
const PART_ENDING: usize = 16;
const MIN_ENDING: usize = 16;
/// The part of the memory that TCP may take, those connections included that the
/// workload has with itself; the kernel's own bound is three times as high.
const PART_OF_TCP: u64 = 32;
/// The part that datagrams may take which wait in sockets, those included that the workload
/// has to itself; without a bound of its own the kernel's is far higher.
const PART_OF_UDP: u64 = 64;
/// The part that the receive buffers of one direction may take.
const PART_OF_BUFFERS: u64 = 16;
const PAGE: u64 = 4096;
const TCP_LIMITS: &str = "/proc/sys/net/ipv4/tcp_mem";
const UDP_LIMITS: &str = "/proc/sys/net/ipv4/udp_mem";

/// What connections may take, each way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Capacity {
    /// Connections at a time.
    pub(crate) places: usize,
    /// Bytes that the receive buffers of one direction may take.
    buffers: u64,
    /// Bytes of all TCP sockets together, and of all UDP sockets.
    tcp: u64,
    udp: u64,
}

impl Capacity {
    /// For a machine with so many bytes of memory.
    pub(crate) fn new(memory: u64) -> Self {
        let memory = memory.min(ENOUGH);
        Self {
            places: connections(memory),
            buffers: memory / PART_OF_BUFFERS,
            tcp: memory / PART_OF_TCP,
            udp: memory / PART_OF_UDP,
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
        let places = (self.places + self.ending()) as u64 * CONNECTION_BYTES;
        let udp = if network.has_datagrams() { self.udp } else { 0 };
        self.tcp + udp + directions * (places + self.buffers)
    }

    /// Bounds what TCP and UDP take, on a machine of its own. `/proc` must be mounted.
    pub(crate) fn limit_sockets(&self) -> Result<(), InitError> {
        for (path, bytes) in [(TCP_LIMITS, self.tcp), (UDP_LIMITS, self.udp)] {
            let most = bytes / PAGE;
            // TCP's windows stop growing at the second, and shrink from there to the third.
            let limits = format!("{} {} {most}", most / 2, most / 3 * 2);
            fs::write(path, &limits).doing(|| format!("writing {limits} to {path}"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
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
        for (memory, places) in [(128, 73), (256, 146), (1024, 585), (8192, MAX_CONNECTIONS)] {
            assert_eq!(Capacity::new(memory * MIB).places, places);
        }
    }

    #[test]
    fn capacity_is_for_the_directions_that_there_are() {
        let capacity = Capacity::new(256 * MIB);
        let [none, one, both] =
            [(0, 0), (1, 0), (1, 1)].map(|(ports, names)| capacity.bytes(&network(ports, names)));
        assert_eq!(none, 8 * MIB);
        assert_eq!(both - one, one - none);
        assert!(both <= 256 * MIB / 4, "{both}");
    }
}
