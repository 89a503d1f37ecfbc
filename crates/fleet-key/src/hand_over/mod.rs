//! Handing a seed from an enclave that holds it to another one of its family.
//!
//! The enclaves reach each other over their parents, any of which may drop, repeat, swap
//! and make up what it carries:
//!
//! 1. The giver gives a [`Challenge`], a nonce that it never gave before.
//! 2. The receiver makes a key, and has a document made with that nonce and the key's
//!    public half: the [`Request`].
//! 3. The giver verifies the request's document, encrypts the seed to the key in it, and
//!    has a document made whose nonce is a digest over the request and what was encrypted:
//!    the [`Gift`].
//! 4. The receiver verifies the gift's document, decrypts the seed, and holds it.
//!
//! A [`Member`] has the rules, and does no input or output: whoever drives it verifies the
//! documents' signatures and says what they hold ([`Claims`]), encrypts and decrypts. The
//! same code is explored in every order of a hostile parent's acts by the tests of this
//! crate.

mod context;
mod format;
mod member;
mod rules;

pub use context::{Context, GIFT_NONCE_BYTES};
pub use format::{CHALLENGE_BYTES, Challenge, FormatError, Gift, MAX_GIFT, MAX_REQUEST, Request};
pub use member::{Grant, Member};
pub use rules::{Claims, Generation, REGISTER, Refusal, Rules, Unpinned, measured, register};
