//! The Nitro security module (NSM) in software, for machines without the hardware.
//!
//! It answers the device's own requests with the device's own responses, limits
//! and error codes, over a Unix socket (each message a big-endian `u32` length
//! and CBOR). Its documents have the layout of AWS's, signed by a chain of
//! AWS's shape under a root of its own: whoever wants to accept them must pin
//! that root, and nobody can take them for AWS's.
//!
//! ```
//! use measurements::Pcr;
//! use nsm::{Request, Response};
//! use software_nsm::{Identity, SoftwareNsm, TestRoot};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let identity = Identity {
//!     instance_id: "i-00000000000000000".to_owned(),
//!     enclave_id: "enc0000000000000000".to_owned(),
//!     measurements: None, // in debug mode
//! };
//! let mut module = SoftwareNsm::new(identity, TestRoot::generate()?)?;
//! let Response::ExtendPCR { data } = module.answer(Request::ExtendPCR {
//!     index: 16,
//!     data: b"a configuration".to_vec(),
//! }) else {
//!     panic!("refused");
//! };
//! assert_eq!(data, Pcr::ZERO.extend(b"a configuration").as_bytes());
//! # Ok(())
//! # }
//! ```
//!
//! [`serve`] puts a module behind a socket.

#![forbid(unsafe_code)]

mod authority;
mod module;
mod server;

pub use authority::{RootError, TestRoot};
pub use module::{Identity, SoftwareNsm};
pub use server::serve;
