//! Signed results of a verification service (EAR).

use std::ffi::{CString, c_char, c_int};
use std::ptr;

use attestation_expectations::Expected;
use attestation_results::Jwks;

use crate::border::{bytes, free, give, judge, text};
use crate::{ATTESTATION_ACCEPTED, ATTESTATION_REFUSED};

/// The keys of those whose results are believed.
pub struct KeySet(Jwks);

/// What is expected of a result.
pub struct Expectations(Expected);

/// What came of the verification of a signed result.
pub struct SignedResult(Result<CString, Refusal>);

struct Refusal {
    rule: CString,
    reason: CString,
}

/// The keys in a JWK set, JSON of `length` bytes.
///
/// Null if it is none; `error`, unless it is null, then gets a text that
/// `attestation_string_free` frees, and null otherwise.
///
/// # Safety
///
/// `json` has `length` bytes. `error` is null or can be written to.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn attestation_key_set_parse(
    json: *const c_char,
    length: usize,
    error: *mut *mut c_char,
) -> *mut KeySet {
    let parse = || {
        // SAFETY: the caller vouches for the length; null is refused.
        let json = unsafe { bytes(json.cast(), length, "json")? };
        let keys = Jwks::from_json(json).map_err(|error| error.to_string())?;
        Ok(KeySet(keys))
    };
    // SAFETY: the caller vouches for `error`.
    unsafe { give(error, parse) }
}

/// Frees a key set; null is left alone.
///
/// # Safety
///
/// `keys` is null or comes from `attestation_key_set_parse`, and is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn attestation_key_set_free(keys: *mut KeySet) {
    // SAFETY: the caller vouches for it.
    unsafe { free(keys) }
}

/// The expectations in a JSON text of `length` bytes. `docs/attest.md` lists its keys. They
/// have to say what may run in the enclave, or that any policy of the issuer is good.
///
/// Null if they cannot be used; `error`, unless it is null, then gets a text that
/// `attestation_string_free` frees, and null otherwise.
///
/// # Safety
///
/// `json` has `length` bytes. `error` is null or can be written to.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn attestation_expectations_parse(
    json: *const c_char,
    length: usize,
    error: *mut *mut c_char,
) -> *mut Expectations {
    let parse = || {
        // SAFETY: the caller vouches for the length; null is refused.
        let json = unsafe { bytes(json.cast(), length, "json")? };
        let json = std::str::from_utf8(json).map_err(|error| format!("expectations: {error}"))?;
        Expected::from_json(json).map(Expectations)
    };
    // SAFETY: the caller vouches for `error`.
    unsafe { give(error, parse) }
}

/// Frees expectations; null is left alone.
///
/// # Safety
///
/// `expectations` is null or comes from `attestation_expectations_parse`, and is not used
/// again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn attestation_expectations_free(expectations: *mut Expectations) {
    // SAFETY: the caller vouches for it.
    unsafe { free(expectations) }
}

/// Verifies a signed result now, by the system's clock. It must be for this nonce, of 8 to
/// 64 bytes, which was drawn for it alone.
///
/// Returns `ATTESTATION_ACCEPTED`, which is 0, only if a key of the set has signed the
/// result and it is what is expected. Whether it is accepted or refused, `result`, unless
/// it is null, gets what `attestation_result_free` frees. After `ATTESTATION_UNUSABLE` it
/// gets null, and `error`, unless it is null, a text that `attestation_string_free` frees;
/// otherwise `error` gets null.
///
/// # Safety
///
/// `keys` and `expectations` are null or come from this library and have not been freed.
/// `token` has `token_length` bytes, and `nonce` has `nonce_length`. `result` and `error`
/// are null or can be written to.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn attestation_result_verify(
    keys: *const KeySet,
    expectations: *const Expectations,
    token: *const c_char,
    token_length: usize,
    nonce: *const u8,
    nonce_length: usize,
    result: *mut *mut SignedResult,
    error: *mut *mut c_char,
) -> c_int {
    let verify = || {
        // SAFETY: the caller vouches for the length; null is refused.
        let nonce = unsafe { bytes(nonce, nonce_length, "nonce")? };
        // SAFETY: the caller vouches for the other arguments.
        unsafe { verified(keys, expectations, token, token_length, Some(nonce)) }
    };
    // SAFETY: the caller vouches for both.
    unsafe { judge(result, error, verify) }
}

/// As `attestation_result_verify`, for any nonce or none: whoever has the result can show it
/// again until it expires.
///
/// # Safety
///
/// As for `attestation_result_verify`.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn attestation_result_verify_unchallenged(
    keys: *const KeySet,
    expectations: *const Expectations,
    token: *const c_char,
    token_length: usize,
    result: *mut *mut SignedResult,
    error: *mut *mut c_char,
) -> c_int {
    let verify = || {
        // SAFETY: the caller vouches for them.
        unsafe { verified(keys, expectations, token, token_length, None) }
    };
    // SAFETY: the caller vouches for both.
    unsafe { judge(result, error, verify) }
}

/// # Safety
///
/// As for `attestation_result_verify`.
unsafe fn verified(
    keys: *const KeySet,
    expectations: *const Expectations,
    token: *const c_char,
    length: usize,
    nonce: Option<&[u8]>,
) -> Result<(c_int, SignedResult), String> {
    // SAFETY: null, or the caller vouches for them.
    let (keys, expectations) = unsafe { (keys.as_ref(), expectations.as_ref()) };
    let KeySet(keys) = keys.ok_or("keys is null")?;
    let Expectations(expected) = expectations.ok_or("expectations is null")?;
    // SAFETY: the caller vouches for the length; null is refused.
    let token = unsafe { bytes(token.cast(), length, "token")? };
    // What is no text has no valid signature either.
    let token = String::from_utf8_lossy(token);
    Ok(match expected.verify(&token, keys, nonce)? {
        Ok(result) => {
            let claims = serde_json::to_string(&result).map_err(|error| error.to_string())?;
            (ATTESTATION_ACCEPTED, SignedResult(Ok(text(claims))))
        }
        Err(error) => {
            let refusal = Refusal {
                rule: text(error.rule.to_string()),
                reason: text(error.reason),
            };
            (ATTESTATION_REFUSED, SignedResult(Err(refusal)))
        }
    })
}

/// What the accepted result says, JSON; null if it was refused, and if `result` is null.
///
/// # Safety
///
/// `result` is null or comes from this library and has not been freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn attestation_result_claims(result: *const SignedResult) -> *const c_char {
    // SAFETY: null, or the caller vouches for it.
    let claims = unsafe { result.as_ref() }.and_then(|SignedResult(result)| result.as_ref().ok());
    claims.map_or(ptr::null(), |claims| claims.as_ptr())
}

/// The identifier of the first rule that was broken; null if the result was accepted.
///
/// # Safety
///
/// `result` is null or comes from this library and has not been freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn attestation_result_rule(result: *const SignedResult) -> *const c_char {
    // SAFETY: null, or the caller vouches for it.
    let refusal = unsafe { result.as_ref() }.and_then(|SignedResult(result)| result.as_ref().err());
    refusal.map_or(ptr::null(), |refusal| refusal.rule.as_ptr())
}

/// How that rule was broken, in a line for people; null if the result was accepted.
///
/// # Safety
///
/// `result` is null or comes from this library and has not been freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn attestation_result_reason(result: *const SignedResult) -> *const c_char {
    // SAFETY: null, or the caller vouches for it.
    let refusal = unsafe { result.as_ref() }.and_then(|SignedResult(result)| result.as_ref().err());
    refusal.map_or(ptr::null(), |refusal| refusal.reason.as_ptr())
}

/// Frees what came of the verification of a result; null is left alone.
///
/// # Safety
///
/// `result` is null or comes from this library, and neither it nor what points into it is
/// used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn attestation_result_free(result: *mut SignedResult) {
    // SAFETY: the caller vouches for it.
    unsafe { free(result) }
}
