//! The Nitro security module (NSM), which vouches for an enclave: it keeps the registers,
//! signs attestation documents and gives random bytes.
//!
//! The module answers CBOR requests: in an enclave through an `ioctl` on `/dev/nsm`,
//! elsewhere a module in software answers the same ones over a Unix socket. Calls block,
//! for about a millisecond on the device: asynchronous callers run them on a thread of
//! their own.
//!
//! ```no_run
//! use nsm::Nsm;
//!
//! # fn main() -> Result<(), nsm::NsmError> {
//! let mut module = Nsm::device()?;
//! module.extend_pcr(16, b"a configuration")?;
//! module.lock_pcr(16)?;
//! let document = module.attestation(None, Some(b"a verifier's nonce"), None)?;
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod client;
mod error;
pub mod framing;
mod timestamp;

pub use aws_nitro_enclaves_nsm_api::api::{AttestationDoc, Digest, ErrorCode, Request, Response};

pub use client::{Description, Nsm};
pub use error::{NsmError, Refusal};
pub use framing::{MAX_NONCE, MAX_PUBLIC_KEY, MAX_REQUEST, MAX_RESPONSE, MAX_USER_DATA};
pub use timestamp::unverified_timestamp_ms;
