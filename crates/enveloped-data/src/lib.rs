//! CMS `EnvelopedData` (RFC 5652, section 6) in the one form that AWS KMS answers an
//! enclave with.
//!
//! A request to KMS that carries an attestation document as its `Recipient` is
//! answered with `CiphertextForRecipient` instead of a plaintext: an `EnvelopedData` for
//! one recipient, the RSA key in the document's `public_key`. The content is encrypted
//! with AES-256-CBC (RFC 3565), its key with RSAES-OAEP, SHA-256 and MGF1 with SHA-256
//! (RFC 4055). [`RecipientKey`] is such a key, and opens such messages; [`seal`] makes
//! them, for a KMS in software and for tests.
//!
//! ```
//! use enveloped_data::{Encoding, RecipientKey, seal};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let key = RecipientKey::generate()?;
//! // In an enclave, the NSM puts this into an attestation document.
//! let public_key = key.public_key_der();
//! let message = seal(public_key, b"a secret", Encoding::Kms)?;
//! assert_eq!(key.open(&message)?.as_slice(), b"a secret");
//! # Ok(())
//! # }
//! ```
//!
//! # What the form does not give
//!
//! `EnvelopedData` is not authenticated: anybody who knows the public key can make a
//! message that opens, and CBC lets him who changes a message change the plaintext in
//! part. What KMS said is known from the TLS connection that it was said on, which
//! therefore has to end where the key is.
//!
//! # What is erased
//!
//! Plaintext, content key and the buffers between them are overwritten when they are
//! dropped. The private key lives in AWS-LC, which overwrites what it frees: the key,
//! its temporary numbers, the AES key schedule. Not overwritten are registers and the
//! stack frames of AWS-LC and of this crate. Nothing here locks memory: a process that
//! may be swapped or dumped has to prevent that itself.

#![forbid(unsafe_code)]

mod ber;
mod malformed;
mod message;
mod object_identifier;
mod padding;
mod recipient;
mod seal;
mod size;

pub use malformed::Malformed;
pub use recipient::{KeyError, OpenError, RecipientKey};
pub use seal::{Encoding, SealError, seal};
pub use size::{MAX_FRAGMENTS, MAX_MESSAGE_BYTES, MAX_PLAINTEXT_BYTES};
