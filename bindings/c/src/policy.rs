//! Policies.

use std::ffi::c_char;

use crate::border::{bytes, free, give};

/// A policy is TOML.
pub const ATTESTATION_FORMAT_TOML: u32 = 0;
/// A policy is JSON with the same keys.
pub const ATTESTATION_FORMAT_JSON: u32 = 1;

/// What a verifier demands of an enclave.
pub struct Policy(pub(crate) attestation::Policy);

/// The policy in a text of `length` bytes in UTF-8, in `ATTESTATION_FORMAT_TOML`
/// or `ATTESTATION_FORMAT_JSON`. It can name no files.
///
/// Null if it is no policy; `error`, unless it is null, then gets a text that
/// `attestation_string_free` frees, and null otherwise.
///
/// # Safety
///
/// `text` has `length` bytes. `error` is null or can be written to.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn attestation_policy_parse(
    format: u32,
    text: *const c_char,
    length: usize,
    error: *mut *mut c_char,
) -> *mut Policy {
    let parse = || {
        // SAFETY: the caller vouches for the length; null is refused.
        let text = unsafe { bytes(text.cast(), length, "text")? };
        let text = std::str::from_utf8(text).map_err(|error| format!("the policy: {error}"))?;
        let policy = match format {
            ATTESTATION_FORMAT_TOML => attestation::Policy::from_toml(text),
            ATTESTATION_FORMAT_JSON => attestation::Policy::from_json(text),
            other => return Err(format!("{other} is no format of a policy")),
        };
        policy.map(Policy).map_err(|error| error.to_string())
    };
    // SAFETY: the caller vouches for `error`.
    unsafe { give(error, parse) }
}

/// Frees a policy; null is left alone.
///
/// # Safety
///
/// `policy` is null or comes from `attestation_policy_parse`, and is not used
/// again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn attestation_policy_free(policy: *mut Policy) {
    // SAFETY: the caller vouches for it.
    unsafe { free(policy) }
}
