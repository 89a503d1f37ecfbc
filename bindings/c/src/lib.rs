//! The verifier of attestation documents for C and what calls C.
//!
//! `include/attestation.h` is made of this file, and a test compares the two.
//! A C ABI cannot be without `unsafe`: what C gives is believed to be what the
//! header says, and checked for what can be checked, which is null and length.
//! No panic passes the border.

use std::ffi::{CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::{ptr, slice};

use attestation::{AuditTime, Nonce, OwnedEvidence, Rejection, Report, Roots};

/// Check at the system's time: for documents that claim to be live.
pub const ATTESTATION_TIME_NOW: u64 = 0;
/// Check at the document's own time: for audits that ask only whether it was
/// valid when it was made.
pub const ATTESTATION_TIME_OF_DOCUMENT: u64 = u64::MAX;
/// A policy is TOML.
pub const ATTESTATION_FORMAT_TOML: u32 = 0;
/// A policy is JSON with the same keys.
pub const ATTESTATION_FORMAT_JSON: u32 = 1;
/// Bytes of a register.
pub const ATTESTATION_PCR_BYTES: usize = 48;

/// What a verifier trusts, and the certificates that it has checked. Keep one.
pub struct Verifier(attestation::Verifier);

/// What a verifier demands of an enclave.
pub struct Policy(attestation::Policy);

/// What came of a verification.
pub struct Verification {
    claims: Option<Accepted>,
    rule: Option<CString>,
    report: CString,
}

struct Accepted {
    claims: OwnedEvidence,
    module_id: CString,
    pcrs: Vec<(usize, [u8; ATTESTATION_PCR_BYTES])>,
}

/// A verifier. It trusts the certificates in `roots`, PEM of `length` bytes, or
/// AWS's root for the commercial regions where `roots` is null.
///
/// Null if the certificates cannot be read; `error`, unless it is null, then
/// gets a text that `attestation_string_free` frees.
///
/// # Safety
///
/// `roots` is null or has `length` bytes. `error` is null or can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn attestation_verifier_new(
    roots: *const u8,
    length: usize,
    error: *mut *mut c_char,
) -> *mut Verifier {
    let make = || {
        let roots = if roots.is_null() {
            Roots::aws()
        } else {
            // SAFETY: `roots` is not null, and the caller vouches for the length.
            let pem = unsafe { bytes(roots, length, "roots")? };
            Roots::usable_from_pem(pem).map_err(|error| error.to_string())?
        };
        Ok(Verifier(attestation::Verifier::new(roots)))
    };
    // SAFETY: the caller vouches for `error`.
    unsafe { give(error, make) }
}

/// Frees a verifier; null is left alone.
///
/// # Safety
///
/// `verifier` is null or comes from `attestation_verifier_new`, and is not used
/// again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn attestation_verifier_free(verifier: *mut Verifier) {
    // SAFETY: the caller vouches for it.
    unsafe { free(verifier) }
}

/// The policy in a text of `length` bytes in UTF-8, in `ATTESTATION_FORMAT_TOML`
/// or `ATTESTATION_FORMAT_JSON`. It can name no files.
///
/// Null if it is no policy; `error`, unless it is null, then gets a text that
/// `attestation_string_free` frees.
///
/// # Safety
///
/// `text` has `length` bytes. `error` is null or can be written to.
#[unsafe(no_mangle)]
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

/// Verifies a document.
///
/// `nonce` is the one of this challenge, which the document must then carry; if
/// it is null, the policy decides. `time_ms` is `ATTESTATION_TIME_NOW`,
/// `ATTESTATION_TIME_OF_DOCUMENT` or milliseconds since 1970.
///
/// A rejected document gives a result, too. Null only if an argument cannot be
/// used; `error`, unless it is null, then gets a text that
/// `attestation_string_free` frees.
///
/// # Safety
///
/// `verifier` and `policy` come from this library and have not been freed.
/// `document` has `document_length` bytes; `nonce` is null or has `nonce_length`.
/// `error` is null or can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn attestation_verify(
    verifier: *const Verifier,
    policy: *const Policy,
    document: *const u8,
    document_length: usize,
    nonce: *const u8,
    nonce_length: usize,
    time_ms: u64,
    error: *mut *mut c_char,
) -> *mut Verification {
    let verify = || {
        // SAFETY: null, or the caller vouches for them.
        let (verifier, policy) = unsafe { (verifier.as_ref(), policy.as_ref()) };
        let Verifier(verifier) = verifier.ok_or("verifier is null")?;
        let Policy(policy) = policy.ok_or("policy is null")?;
        // SAFETY: the caller vouches for the length; null is refused.
        let document = unsafe { bytes(document, document_length, "document")? };
        let with_nonce = if nonce.is_null() {
            None
        } else {
            // SAFETY: `nonce` is not null, and the caller vouches for the length.
            let nonce = unsafe { bytes(nonce, nonce_length, "nonce")? };
            let policy = policy.with_nonce(nonce.to_vec());
            Some(policy.map_err(|error| error.to_string())?)
        };
        let policy = with_nonce.as_ref().unwrap_or(policy);
        let time = match time_ms {
            ATTESTATION_TIME_NOW => {
                let verification = verifier.verify(document, policy, Nonce::Unchallenged);
                let outcome = verification.outcome;
                return Verification::of(
                    &verification.report,
                    outcome.map(|accepted| OwnedEvidence::from(&*accepted)),
                );
            }
            ATTESTATION_TIME_OF_DOCUMENT => AuditTime::OfDocument,
            milliseconds => AuditTime::At(milliseconds),
        };
        let audit = verifier.audit(document, policy, time);
        let outcome = audit.outcome;
        Verification::of(
            &audit.report,
            outcome.map(|audited| OwnedEvidence::from(&*audited)),
        )
    };
    // SAFETY: the caller vouches for `error`.
    unsafe { give(error, verify) }
}

impl Verification {
    fn of(report: &Report, outcome: Result<OwnedEvidence, Rejection>) -> Result<Self, String> {
        let report = serde_json::to_string(report);
        let report = text(report.map_err(|error| error.to_string())?)?;
        let (claims, rule) = match outcome {
            Ok(claims) => (Some(Accepted::of(claims)?), None),
            Err(rejection) => (None, Some(text(rejection.rule.to_string())?)),
        };
        Ok(Self {
            claims,
            rule,
            report,
        })
    }
}

impl Accepted {
    fn of(claims: OwnedEvidence) -> Result<Self, String> {
        Ok(Self {
            module_id: text(claims.module_id())?,
            pcrs: claims
                .pcrs()
                .map(|(index, pcr)| (index, *pcr.as_bytes()))
                .collect(),
            claims,
        })
    }
}

/// Frees a result; null is left alone.
///
/// # Safety
///
/// `result` is null or comes from `attestation_verify`, and neither it nor what
/// points into it is used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn attestation_result_free(result: *mut Verification) {
    // SAFETY: the caller vouches for it.
    unsafe { free(result) }
}

/// Whether every rule was kept; false for null.
///
/// # Safety
///
/// `result` is null or comes from `attestation_verify`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn attestation_result_accepted(result: *const Verification) -> bool {
    // SAFETY: the caller vouches for it.
    unsafe { accepted(result) }.is_some()
}

/// The identifier of the first rule that was broken; null if accepted.
///
/// # Safety
///
/// `result` is null or comes from `attestation_verify`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn attestation_result_rule(result: *const Verification) -> *const c_char {
    // SAFETY: null, or the caller vouches for it.
    let result = unsafe { result.as_ref() };
    let rule = result.and_then(|result| result.rule.as_ref());
    rule.map_or(ptr::null(), |rule| rule.as_ptr())
}

/// The report of every check, JSON.
///
/// # Safety
///
/// `result` is null or comes from `attestation_verify`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn attestation_result_report(result: *const Verification) -> *const c_char {
    // SAFETY: null, or the caller vouches for it.
    let result = unsafe { result.as_ref() };
    result.map_or(ptr::null(), |result| result.report.as_ptr())
}

/// The enclave's identity; null unless accepted.
///
/// # Safety
///
/// `result` is null or comes from `attestation_verify`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn attestation_result_module_id(
    result: *const Verification,
) -> *const c_char {
    // SAFETY: the caller vouches for it.
    let accepted = unsafe { accepted(result) };
    accepted.map_or(ptr::null(), |accepted| accepted.module_id.as_ptr())
}

/// When the document was made, in milliseconds since 1970; 0 unless accepted.
///
/// # Safety
///
/// `result` is null or comes from `attestation_verify`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn attestation_result_timestamp_ms(result: *const Verification) -> u64 {
    // SAFETY: the caller vouches for it.
    let accepted = unsafe { accepted(result) };
    accepted.map_or(0, |accepted| accepted.claims.timestamp_ms())
}

/// A register, `ATTESTATION_PCR_BYTES` bytes; null unless accepted, and if the
/// document does not hold it.
///
/// # Safety
///
/// `result` is null or comes from `attestation_verify`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn attestation_result_pcr(
    result: *const Verification,
    index: usize,
) -> *const u8 {
    // SAFETY: the caller vouches for it.
    let accepted = unsafe { accepted(result) };
    let pcrs = accepted.map_or(&[][..], |accepted| accepted.pcrs.as_slice());
    let found = pcrs.iter().find(|(number, _)| *number == index);
    found.map_or(ptr::null(), |(_, pcr)| pcr.as_ptr())
}

/// The nonce, and its `length`; null unless accepted, and if there is none.
///
/// # Safety
///
/// `result` is null or comes from `attestation_verify`. `length` is null or can
/// be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn attestation_result_nonce(
    result: *const Verification,
    length: *mut usize,
) -> *const u8 {
    // SAFETY: the caller vouches for both.
    unsafe { field(result, length, OwnedEvidence::nonce) }
}

/// What the enclave's software put into the document, and its `length`; null
/// unless accepted, and if there is nothing. What is empty is not null.
///
/// # Safety
///
/// `result` is null or comes from `attestation_verify`. `length` is null or can
/// be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn attestation_result_user_data(
    result: *const Verification,
    length: *mut usize,
) -> *const u8 {
    // SAFETY: the caller vouches for both.
    unsafe { field(result, length, OwnedEvidence::user_data) }
}

/// The key that the enclave's software bound to the document, and its `length`;
/// null unless accepted, and if there is none.
///
/// # Safety
///
/// `result` is null or comes from `attestation_verify`. `length` is null or can
/// be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn attestation_result_public_key(
    result: *const Verification,
    length: *mut usize,
) -> *const u8 {
    // SAFETY: the caller vouches for both.
    unsafe { field(result, length, OwnedEvidence::public_key) }
}

/// Frees the text of an error; null is left alone.
///
/// # Safety
///
/// `text` is null or is an error of this library, and is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn attestation_string_free(text: *mut c_char) {
    if !text.is_null() {
        // SAFETY: it was made by `CString::into_raw`, and the caller is done with it.
        drop(unsafe { CString::from_raw(text) });
    }
}

/// Gives what `make` makes, or null and the error. A panic is an error.
///
/// # Safety
///
/// `error` is null or can be written to.
unsafe fn give<T>(error: *mut *mut c_char, make: impl FnOnce() -> Result<T, String>) -> *mut T {
    // What `make` borrows never changes, so a panic leaves nothing half-done.
    let result = catch_unwind(AssertUnwindSafe(make))
        .unwrap_or_else(|_| Err("an internal error; please report it".to_owned()));
    match result {
        Ok(value) => Box::into_raw(Box::new(value)),
        Err(reason) => {
            if !error.is_null() {
                let reason = text(reason).unwrap_or_default();
                // SAFETY: it is not null, and the caller vouches for it.
                unsafe { error.write(reason.into_raw()) };
            }
            ptr::null_mut()
        }
    }
}

/// # Safety
///
/// `value` is null or comes from [`give`], and is not used again.
unsafe fn free<T>(value: *mut T) {
    if !value.is_null() {
        // SAFETY: it was made by `Box::into_raw`, and the caller is done with it.
        drop(unsafe { Box::from_raw(value) });
    }
}

/// The bytes that C gave.
///
/// # Safety
///
/// `start` is null or has `length` bytes, which nobody changes during `'a`.
unsafe fn bytes<'a>(start: *const u8, length: usize, name: &str) -> Result<&'a [u8], String> {
    if start.is_null() {
        return Err(format!("{name} is null"));
    }
    if isize::try_from(length).is_err() {
        return Err(format!("{name} cannot have {length} bytes"));
    }
    // SAFETY: it is not null, no longer than memory, and the caller vouches for it.
    Ok(unsafe { slice::from_raw_parts(start, length) })
}

/// # Safety
///
/// `result` is null or comes from `attestation_verify`, and lives during `'a`.
unsafe fn accepted<'a>(result: *const Verification) -> Option<&'a Accepted> {
    // SAFETY: null, or the caller vouches for it.
    unsafe { result.as_ref() }?.claims.as_ref()
}

/// # Safety
///
/// As [`accepted`]; `length` is null or can be written to.
unsafe fn field(
    result: *const Verification,
    length: *mut usize,
    of: fn(&OwnedEvidence) -> Option<&[u8]>,
) -> *const u8 {
    // SAFETY: the caller vouches for it.
    let accepted = unsafe { accepted(result) };
    let bytes = accepted.and_then(|accepted| of(&accepted.claims));
    if !length.is_null() {
        // SAFETY: it is not null, and the caller vouches for it.
        unsafe { length.write(bytes.map_or(0, <[u8]>::len)) };
    }
    bytes.map_or(ptr::null(), <[u8]>::as_ptr)
}

/// A text for C. No text of the library holds a zero.
fn text(text: impl Into<Vec<u8>>) -> Result<CString, String> {
    CString::new(text).map_err(|error| error.to_string())
}
