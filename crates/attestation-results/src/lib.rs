//! Attestation results for relying parties: EAR
//! ([draft-ietf-rats-ear-04](https://datatracker.ietf.org/doc/draft-ietf-rats-ear/04/)),
//! signed with ES384 as JWTs.
//!
//! A result says in AR4SI's terms what a verification has shown, and repeats what
//! the document holds, but only where its signature is good. `docs/attest-service.md`
//! says which claim stands for which checks, and why others are never made.
//!
//! ```
//! use std::time::Duration;
//!
//! use attestation::{Nonce, Policy, Profile, Roots, Verifier};
//! use attestation_results::{Appraisal, Issuer, SigningKey};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let document = include_bytes!("../../../attestation/tests/vectors/8e5652f3b009e620.cbor");
//! # let now = 1_700_000_000;
//! let issuer = Issuer {
//!     developer: "Example Ltd".to_owned(),
//!     url: None,
//!     lifetime: Duration::from_secs(300),
//! };
//! let (key, _pem) = SigningKey::generate()?;
//!
//! let policy = Policy::builder().allow_any_image().build()?;
//! let verifier = Verifier::new(Roots::aws());
//! let verification = verifier.verify(document, &policy, Nonce::Unchallenged);
//! let appraisal = Appraisal {
//!     report: &verification.report,
//!     document,
//!     profile: Profile::Enclave,
//!     policy_ids: &["any image"],
//!     nonce: None,
//! };
//! let token = issuer.token(&key, &appraisal, now)?;
//! assert_eq!(token.split('.').count(), 3);
//! # Ok(())
//! # }
//! ```
//!
//! [`SigningKey`] holds its private half; [`ExternalKey`] stands for one that is
//! elsewhere, as in KMS. A [`KeyRing`] keeps the keys of a folder and rotates them.

#![forbid(unsafe_code)]

mod external;
mod issuer;
mod keys;
mod secret_file;
mod signing_key;
mod trust;

pub use external::{ExternalKey, UnsignedToken};
pub use issuer::{Appraisal, EarError, Issuer};
pub use keys::{KeyRing, KeyRingError, KeySet, Rotation};
pub use secret_file::write_secret;
pub use signing_key::{Jwk, KeyError, SigningKey};
