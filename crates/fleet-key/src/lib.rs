//! Keys that the enclaves of a family share, whatever their release: they are derived from
//! one [`Seed`], which never leaves the inits of these enclaves.

#![forbid(unsafe_code)]

mod family;
mod seed;

pub use family::{Family, FamilyError, MAX_FAMILY};
pub use seed::{
    Fingerprint, KEY_BYTES, KeyLength, KeyLengthError, MAX_PURPOSE, Purpose, PurposeError, Seed,
    SeedError,
};
