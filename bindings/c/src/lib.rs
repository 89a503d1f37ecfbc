//! The verifier of attestation documents for C and what calls C.
//!
//! `include/attestation.h` is made of this crate, and a test compares the two.
//! A C ABI cannot be without `unsafe`: what C gives is believed to be what the
//! header says, and checked for what can be checked, which is null and length.
//! No panic passes the border.

mod border;
mod evidence;
mod policy;
mod result;
mod verification;
mod verifier;

use std::ffi::{CStr, c_char, c_int};

pub use border::attestation_string_free;
pub use evidence::*;
pub use policy::*;
pub use result::*;
pub use verification::*;
pub use verifier::*;

/// The document keeps every rule of the verifier and of the policy.
pub const ATTESTATION_ACCEPTED: c_int = 0;
/// It breaks one, which the verification or the audit names.
pub const ATTESTATION_REFUSED: c_int = 1;
/// An argument cannot be used, so nothing was verified. The error says which, and why.
pub const ATTESTATION_UNUSABLE: c_int = 2;

/// The version of this header. Before 1.0 another minor version may break its callers,
/// from then on only another major version.
pub const ATTESTATION_VERSION_MAJOR: c_int = 0;
/// See `ATTESTATION_VERSION_MAJOR`.
pub const ATTESTATION_VERSION_MINOR: c_int = 1;
/// See `ATTESTATION_VERSION_MAJOR`.
pub const ATTESTATION_VERSION_PATCH: c_int = 0;

/// The version of the library that is loaded, such as "0.1.0".
#[unsafe(no_mangle)]
pub extern "C" fn attestation_version() -> *const c_char {
    const VERSION: &CStr =
        match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
            Ok(version) => version,
            Err(_) => c"",
        };
    VERSION.as_ptr()
}
