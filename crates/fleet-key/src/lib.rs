//! Keys that the enclaves of a family share, whatever their release: they are derived from
//! one [`Seed`], which never leaves the inits of these enclaves.
//!
//! Who may have the seed is decided here, without any input or output. A [`Member`] is one
//! boot of an enclave: it gives its seed to a sibling that has shown itself by a document,
//! and takes one of a sibling that has. Whoever carries the messages between the two may be
//! hostile:
//!
//! 1. the giver issues a nonce ([`Member::offer`]);
//! 2. the receiver answers with a document that holds this nonce and its key of this boot,
//!    and with a nonce of its own ([`Member::ask`], [`Request`]);
//! 3. the giver verifies the document, seals the seed to that key, bound to the
//!    [`Transcript`], and makes a document over the receiver's nonce and what it has sealed
//!    ([`Member::give`], [`Answer`]);
//! 4. the receiver verifies that document, and takes the seed if it has none
//!    ([`Member::take`]).
//!
//! The rules are tested by a model: every order of every message that a hostile carrier can
//! make is tried, and each rule that is left out is found to be missing.

#![forbid(unsafe_code)]

mod family;
mod member;
mod message;
#[cfg(test)]
mod model;
mod seed;
mod transcript;

pub use family::{FAMILY_PCR, Family, FamilyError, MAX_FAMILY};
pub use member::{Member, Own, Refusal, Registers, Rule, Said, Use};
pub use message::{Answer, MAX_MESSAGE, MessageError, Nonce, Request};
pub use seed::{
    Fingerprint, KEY_BYTES, KeyLength, KeyLengthError, MAX_PURPOSE, Purpose, PurposeError, Seed,
    SeedError,
};
pub use transcript::Transcript;
