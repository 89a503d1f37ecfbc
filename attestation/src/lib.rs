//! Verification of attestation documents of AWS Nitro Enclaves and of NitroTPM.
//!
//! An enclave proves what runs in it by a document that AWS's hypervisor signs. This crate
//! parses such documents, verifies their signature and certificates, and decides by a
//! policy. It is computation alone: it opens no connection, starts no thread, and reads
//! no file unless it is told to read a policy.
//!
//! # A verification
//!
//! ```
//! use attestation::{Nonce, Pcr, Policy, Roots, Verifier};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let document = include_bytes!("../corpus/aws/8e5652f3b009e620.cbor");
//! # let (pcr0, nonce) = (Pcr::new([1; 48]), [7; 32]);
//! // Once: AWS's root is in the crate, and which software is wanted is known.
//! let verifier = Verifier::new(Roots::aws());
//! let policy = Policy::builder().pcr(0, pcr0).build()?;
//!
//! // For each challenge: the nonce that the enclave was given.
//! let verification = verifier.verify(document, &policy, Nonce::Fresh(&nonce));
//! match verification.outcome {
//!     Ok(accepted) => println!("enclave {}", accepted.module_id()),
//!     Err(rejection) => println!("{}: {}", rejection.rule, rejection.reason),
//! }
//! // Every check, passed or not, for people and as JSON.
//! assert!(!verification.report.accepted);
//! # Ok(())
//! # }
//! ```
//!
//! [`Policy::builder`] says what can be demanded. A policy has to name code
//! ([`Policy::names_code`]), by [`Measurements`] that `image-builder` or `nitro-cli` wrote
//! or by registers, or to say that it accepts any; a nonce that is new for each challenge
//! is what shows that a document is. That there is none has to be said:
//! [`Nonce::Unchallenged`].
//!
//! # What a result stands for
//!
//! A document passes through types, and cannot skip one:
//!
//! 1. [`Document`]: the bytes are a document by AWS's rules and nothing else. Nothing in
//!    it is to be believed yet, as the names of its methods say.
//! 2. [`Accepted`]: its signature holds, its certificates lead to a pinned root and are
//!    valid now, and a [`Policy`] is satisfied: these measurements, this nonce, this fresh.
//!    Only now can a register be read as trusted. [`VerifiedClaims`] keeps what it says.
//!
//! A document that was kept is good or bad at another time than now. [`Verifier::audit`]
//! looks at one, and what it finds good is [`Audited`], which nothing takes for
//! [`Accepted`].
//!
//! Both report each check by the identifier of its [`Rule`].
//!
//! # Time and memory
//!
//! Documents, certificates and policies are bounded before they are read
//! ([`MAX_DOCUMENT`]). A verification takes a fifth of a millisecond where the
//! [`Verifier`] knows the leaf certificate, and one millisecond where it knows nothing; in
//! asynchronous programs that is work for `tokio::task::spawn_blocking`, unless so short a
//! stop does not matter.
//!
//! # Features
//!
//! | feature | what it adds |
//! |---|---|
//! | `aws-lc-rs` (on by default) | the cryptography, [`AwsLcRs`]; without it, [`Verifier::with_crypto`] is given a [`Crypto`] |
//! | `policy-files` | policies as TOML and JSON, from texts and files: `Policy::read`, `from_toml`, `from_json` |
//!
//! # Browsers, and programs without `std`
//!
//! What keeps the crate from `no_std` is `x509-parser`, which parses the certificates and
//! needs `std` in every version; of the rest only a lock, the system's clock and the files
//! of `policy-files` are more than `alloc`. In a browser, `std` is what
//! `wasm32-unknown-unknown` has: without the default features the crate compiles for it (CI
//! checks that), [`Verifier::with_crypto`] is given a [`Crypto`] made of `p384` and `sha2`,
//! and [`Verifier::verify_at`] the time, since that target has no clock.
//!
//! # What stays
//!
//! Versions follow [Semantic Versioning](https://semver.org). These are part of the
//! interface, and change in a major version only: the identifiers of rules, the keys of a
//! policy file and what they mean, the digest of a policy, and the schema of a serialised
//! [`Report`], which has a number of its own. New rules and new reasons are no break, and
//! neither is a document that breaks AWS's rules and is refused from then on. Texts for
//! people may change.
//!
//! # Around it
//!
//! `attestation-client` challenges live enclaves, `attestation-results` signs results for
//! relying parties, `attestation-service` does both over HTTP, `nsm` asks the security
//! module inside an enclave, and `software-nsm` stands for it in tests. The command
//! `attest` has all of them.

#![forbid(unsafe_code)]

mod addition;
mod appraisal;
#[cfg(feature = "aws-lc-rs")]
mod aws_lc;
mod cache;
mod cbor;
mod certificate;
mod chain;
mod claims;
mod clock;
mod code;
mod crypto;
mod demand;
mod der;
mod document;
mod evidence;
mod image;
#[cfg(feature = "policy-files")]
mod image_text;
mod nonce;
#[cfg(feature = "policy-files")]
mod one_or_many;
mod partition;
mod policy;
#[cfg(all(feature = "aws-lc-rs", feature = "policy-files"))]
mod policy_digest;
mod policy_error;
#[cfg(feature = "policy-files")]
mod policy_file;
#[cfg(feature = "policy-files")]
mod policy_json;
#[cfg(feature = "policy-files")]
mod policy_text;
mod purpose;
#[cfg(feature = "policy-files")]
mod register_words;
mod report;
mod roots;
mod rule;
mod shown;
mod signature;
#[cfg(feature = "aws-lc-rs")]
mod signer;
#[cfg(feature = "policy-files")]
mod text_file;
#[cfg(feature = "policy-files")]
mod unique_keys;
mod unsigned;
mod validated;
mod verify;

pub use addition::Addition;
#[cfg(feature = "aws-lc-rs")]
pub use aws_lc::AwsLcRs;
pub use claims::{OwnedEvidence, VerifiedClaims};
pub use crypto::{Crypto, Es384Key, POINT_BYTES, SignatureEncoding};
pub use document::{Document, MAX_DOCUMENT, MAX_NONCE, MAX_PUBLIC_KEY, MAX_USER_DATA, Profile};
pub use evidence::{Accepted, Audited, Evidence};
pub use image::ImageMeasurements;
pub use measurements::{
    InstanceId, Measurements, PCR_COUNT, ParentError, Pcr, PcrError, RoleArn, TPM_PCR_COUNT,
    TpmMeasurements,
};
pub use nonce::Nonce;
pub use partition::Partition;
pub use policy::{Binding, Policy, PolicyBuilder};
pub use policy_error::PolicyError;
#[cfg(feature = "policy-files")]
pub use policy_file::read_measurements;
#[cfg(feature = "policy-files")]
pub use policy_text::parse_duration;
pub use purpose::Purpose;
pub use report::{Check, Claims, Mode, Outcome, Report};
pub use roots::{PinnedRoot, Roots, RootsError};
pub use rule::{Rejection, Rule};
#[cfg(feature = "aws-lc-rs")]
pub use signer::{SignerError, pcr8_of_signer};
#[cfg(feature = "policy-files")]
pub use text_file::MAX_POLICY_FILE;
pub use unsigned::is_unsigned;
pub use verify::{Audit, AuditTime, Verification, Verifier};
