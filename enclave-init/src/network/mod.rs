//! The enclave's own network: a namespace for the workload, and a pair of interfaces
//! between it and the init's.
//!
//! The workload's namespace has `lo`, and `eth0` with one neighbour, the init. There is a
//! route to each destination that the init answers for, and no default route: anything else
//! fails at once. The init's side takes packets to those destinations for its own (routes of
//! the type `local`), so it can listen at any of them, and forwards nothing. Neither side
//! resolves the other's link address or has IPv6 on the pair.
//!
//! Ports, sockets in the abstract namespace and settings of `net.*` are the workload's own
//! in its namespace. The init goes there to make sockets, to set these, and to start the reaper.

mod namespace;
mod netlink;
mod pair;
mod unreachable;

pub(crate) use namespace::Namespace;
pub(crate) use netlink::check_pairs;
pub(crate) use pair::Making;
pub(crate) use unreachable::Unreachable;
