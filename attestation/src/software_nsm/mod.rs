//! A Nitro security module in software, where there is no hardware.
//!
//! It answers the device's own requests with the device's own responses, limits
//! and error codes, over a Unix socket (each message a big-endian `u32` length
//! and CBOR). Its documents have the layout of AWS's, signed by a chain of
//! AWS's shape under a root of its own: whoever wants to accept them must pin
//! that root, and nobody can take them for AWS's.

mod authority;
mod module;
mod server;

pub use authority::{RootError, TestRoot};
pub use module::{Identity, SoftwareNsm};
pub use server::serve;
