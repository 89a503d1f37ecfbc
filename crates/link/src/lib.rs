//! Transports and wire protocol between `enclave-init` and `parent-agent`.
//!
//! # Connections
//!
//! Everything travels over stream connections between two [`Endpoint`]s: vsock
//! on Nitro and in a virtual machine, Unix sockets under `sim`. The enclave
//! connects to the parent's [`port::AGENT`] for control, logs and egress; the
//! parent connects to the enclave's [`port::INIT`] for ingress.
//!
//! | channel | opened by | then |
//! |---|---|---|
//! | [`Channel::Control`] | init | [`control::FromInit`] and [`control::FromAgent`] frames, either way, until the enclave ends |
//! | [`Channel::Logs`] | init | [`logs::FromInit`] frames, answered by [`logs::FromAgent`] |
//! | [`Channel::Egress`] | init | one [`target::Connect`], one [`target::Reply`], then the connection's own bytes |
//! | [`Channel::Ingress`] | agent | the same, towards a port inside the enclave |
//! | [`Channel::Records`] | init | one [`records::Question`], one [`records::Answer`] |
//! | [`Channel::Datagrams`] | init | one [`target::Connect`], one [`target::Reply`], then [`datagrams`], either way |
//!
//! Each connection starts with a [`hello`], which settles the protocol's
//! version; what follows are [`frame`]s, each a length and a CBOR message. The
//! one exception is the heartbeat on [`port::HEARTBEAT`], whose single byte is
//! AWS's own protocol.
//!
//! The peer is never trusted: frames are bounded before they are read, and a
//! message that does not decode ends the connection with an error.

#![forbid(unsafe_code)]

mod boot_id;
mod bounded;
pub mod control;
pub mod copy;
pub mod credentials;
pub mod datagrams;
mod end_code;
pub mod endpoint;
pub mod frame;
pub mod hello;
pub mod kms;
pub mod logs;
pub mod places;
pub mod port;
pub mod records;
pub mod target;
pub mod transport;
mod vsock;

pub use crate::vsock::Vsock;
pub use boot_id::BootId;
pub use bounded::{Bytes, MAX_NAME, Text};
pub use credentials::{Credentials, Secret};
pub use end_code::EndCode;
pub use endpoint::Endpoint;
pub use hello::Channel;
pub use transport::{Listener, Stream, connect};
