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
//! use attestation_results::{Appraisal, Issuer, NonceSource, SigningKey};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let document = include_bytes!("../../../attestation/corpus/aws/8e5652f3b009e620.cbor");
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
//!     nonce: NonceSource::None,
//! };
//! let token = issuer.token(&key, &appraisal, now)?;
//! assert_eq!(token.split('.').count(), 3);
//! # Ok(())
//! # }
//! ```
//!
//! A relying party checks a result with [`verify`](verify()), against the issuer's
//! [`Jwks`] and what it expects:
//!
//! ```no_run
//! use attestation_results::{Expectations, Jwks, verify};
//!
//! # fn check(token: &str, key_set: &[u8], nonce: &[u8]) -> Result<(), Box<dyn std::error::Error>> {
//! let keys = Jwks::from_json(key_set)?;
//! let expectations = Expectations::with_nonce(nonce)
//!     .issuer("https://verifier.example")
//!     .policy("sha256:27f8…")
//!     .build()?;
//! let result = verify(token, &keys, &expectations)?;
//! println!("{} is what is expected", result.document.module_id);
//! # Ok(())
//! # }
//! ```
//!
//! [`SigningKey`] holds its private half; [`ExternalKey`] stands for one that is
//! elsewhere, as in KMS. A [`KeyRing`] keeps the keys of a folder and rotates them.

#![forbid(unsafe_code)]

mod claims;
mod expectations;
mod external;
mod freshness;
mod issuer;
mod jwks;
mod keys;
mod rule;
mod secret_file;
mod signing_key;
mod strict_json;
mod token;
mod trust;
mod verify;

pub use claims::AttesterClaims;
pub use expectations::{DEFAULT_CLOCK_SKEW, Expectations, ExpectationsBuilder, ExpectationsError};
pub use external::{ExternalKey, UnsignedToken};
pub use freshness::{Freshness, NONCE_BYTES, NonceSource};
pub use issuer::{Appraisal, EarError, Issuer};
pub use jwks::{Jwks, JwksError, MAX_JWKS};
pub use keys::{KeyRing, KeyRingError, KeySet, Rotation};
pub use rule::{ResultError, ResultRule};
pub use secret_file::{SecretFileError, read_secret, write_secret};
pub use signing_key::{Jwk, KeyError, SigningKey};
pub use token::MAX_TOKEN;
pub use trust::Status;
pub use verify::{VerifiedResult, verify, verify_at};

/// What the fuzz target looks at besides: what is behind a signature.
#[doc(hidden)]
pub mod internal {
    use crate::{ResultError, claims, token};

    /// Reads a token's header.
    pub fn read_header(bytes: &[u8]) -> Result<(), ResultError> {
        token::key_id(bytes).map(|_| ())
    }

    /// Reads a token's claims.
    pub fn read_claims(bytes: &[u8]) -> Result<(), ResultError> {
        claims::Claims::parse(bytes).map(|_| ())
    }
}
