//! Attestation documents of AWS Nitro Enclaves: parse, verify, decide.
//!
//! A document passes through three types, and cannot skip one:
//!
//! 1. [`Document`]: the bytes are a document by AWS's rules and nothing else.
//!    Nothing in it is to be believed yet.
//! 2. [`Authentic`]: its signature holds, and its certificates lead to a pinned
//!    root, all valid at a stated time. AWS's hypervisor made it, for *some*
//!    enclave, at *some* time.
//! 3. [`Accepted`]: a [`Policy`] is satisfied: these measurements, this nonce,
//!    this fresh. Only now can a register be read as trusted.
//!
//! [`verify`] goes all the way and reports every check by the identifier of its
//! [`Rule`], whether it passed or not.
//!
//! ```no_run
//! use attestation::{Policy, Roots, Time, verify};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let (document, measurements, nonce) = (Vec::new(), "", [0; 32]);
//! let policy = Policy::builder()
//!     .measurements(serde_json::from_str(measurements)?)
//!     .nonce(nonce.to_vec())
//!     .build()?;
//! let verification = verify(&document, &Roots::aws(), &policy, Time::Now);
//! match verification.outcome {
//!     Ok(accepted) => println!("enclave {}", accepted.module_id()),
//!     Err(rejection) => eprintln!("refused: {rejection}"),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Whoever verifies more than a few documents keeps a [`Verifier`], which
//! remembers the certificates that it has checked. Everything here is computation
//! on the caller's thread, for a fifth of a millisecond where the leaf is known
//! and for one where nothing is: in asynchronous programs that is work for
//! `tokio::task::spawn_blocking`, unless so short a stop does not matter.
//!
//! The `policy-files` feature reads policies from TOML and JSON.

#![forbid(unsafe_code)]

mod addition;
mod cache;
mod cbor;
mod certificate;
mod chain;
mod claims;
mod demand;
mod der;
mod document;
mod policy;
#[cfg(feature = "policy-files")]
mod policy_digest;
#[cfg(feature = "policy-files")]
mod policy_file;
mod purpose;
mod report;
mod roots;
mod rule;
mod signature;
mod unsigned;
mod validated;
mod verify;

pub use addition::Addition;
pub use claims::VerifiedClaims;
pub use demand::PolicyError;
pub use document::{Document, MAX_DOCUMENT, MAX_NONCE, MAX_PUBLIC_KEY, MAX_USER_DATA, Profile};
pub use measurements::PCR_COUNT;
pub use policy::{Binding, Policy, PolicyBuilder};
#[cfg(feature = "policy-files")]
pub use policy_file::{MAX_POLICY_FILE, parse_duration, read_measurements};
pub use purpose::Purpose;
pub use report::{Check, Claims, Outcome, Report};
pub use roots::{Roots, RootsError};
pub use rule::{Rejection, Rule};
pub use unsigned::is_unsigned;
pub use verify::{Accepted, Authentic, Time, Verification, Verifier, verify};
