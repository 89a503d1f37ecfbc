//! What an egress or ingress connection is to be joined to.

use minicbor::{Decode, Encode};

use crate::bounded::Text;

/// Longest host name, in bytes (RFC 1035, section 2.3.4).
pub const MAX_HOST: usize = 253;
/// Most connections that the init carries each way.
pub const MAX_CONNECTIONS: usize = 1024;
/// Fewest, however little memory there is.
const MIN_CONNECTIONS: usize = 16;
/// What one connection takes of the enclave's memory at least: in the init 28 KiB while
/// its small buffers are in use; in the kernel 8 KiB for two sockets and the files that
/// hold them, and 20 KiB for a few packets of vsock and of TCP.
pub const CONNECTION_BYTES: u64 = 56 * 1024;
/// The part of the enclave's memory that the connections of one direction may take so.
const PART_OF_MEMORY: u64 = 32;
/// Longest reason in a [`Reply`], in bytes.
pub const MAX_REASON: usize = 256;

/// Connections that the init of an enclave with so many bytes of memory carries each way.
/// Its agent gives out no more, so that it shares them among clients.
pub fn connections(memory: u64) -> usize {
    let connections = memory / PART_OF_MEMORY / CONNECTION_BYTES;
    usize::try_from(connections)
        .unwrap_or(MAX_CONNECTIONS)
        .clamp(MIN_CONNECTIONS, MAX_CONNECTIONS)
}

/// Asks the acceptor to connect. On an egress channel the host is a name or an
/// address that the allowlist must hold; on an ingress channel it is empty, and
/// the port is one inside the enclave.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Connect {
    /// Host name or address.
    #[n(0)]
    pub host: Text<MAX_HOST>,
    /// Port, of TCP or on a channel of datagrams of UDP.
    #[n(1)]
    pub port: u16,
}

/// The acceptor's answer; after [`Reply::Connected`] the connection carries the
/// target's bytes.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Reply {
    /// Joined.
    #[n(0)]
    Connected,
    /// Not joined; the acceptor closes the connection.
    #[n(1)]
    Refused {
        /// Why, for programs.
        #[n(0)]
        refusal: Refusal,
        /// Why, for people.
        #[n(1)]
        reason: Text<MAX_REASON>,
    },
}

/// Why a target was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Refusal {
    /// No rule of the manifest allows it.
    #[n(0)]
    NotAllowed,
    /// The host's name has no address.
    #[n(1)]
    NameNotFound,
    /// The target refused, reset, or could not be reached.
    #[n(2)]
    Unreachable,
    /// The target did not answer in time.
    #[n(3)]
    TimedOut,
    /// Too many connections are open.
    #[n(4)]
    Busy,
}
