//! Keys that the enclaves of a family share, whatever their release: they are derived from
//! one [`Seed`], which never leaves the inits of these enclaves. How one hands it to another
//! is in [`hand_over`].

#![forbid(unsafe_code)]

mod family;
pub mod hand_over;
mod seed;

pub use family::{Family, FamilyError, MAX_FAMILY};
pub use seed::{
    Fingerprint, FingerprintError, KEY_BYTES, KeyLength, KeyLengthError, MAX_PURPOSE, Purpose,
    PurposeError, Seed, SeedError,
};
