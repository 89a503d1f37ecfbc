//! Verifications of live documents, and audits of archived ones.

use std::ffi::{CString, c_char, c_int};
use std::ptr;

use attestation::{AuditTime, MAX_NONCE, Nonce, Rejection, Report};

use crate::border::{bytes, free, judge, text};
use crate::evidence::Evidence;
use crate::policy::Policy;
use crate::verifier::Verifier;
use crate::{ATTESTATION_ACCEPTED, ATTESTATION_REFUSED};

/// What came of the verification of a live document.
pub struct Verification(Judgement);

/// What came of the audit of an archived document. It says nothing about now.
pub struct Audit(Judgement);

struct Judgement {
    outcome: Result<Evidence, Refusal>,
    report: CString,
}

struct Refusal {
    rule: CString,
    reason: CString,
}

impl Judgement {
    fn new(report: &Report, outcome: Result<Evidence, Rejection>) -> Result<Self, String> {
        let report = serde_json::to_string(report).map_err(|error| error.to_string())?;
        Ok(Self {
            outcome: outcome.map_err(|rejection| Refusal {
                rule: text(rejection.rule.to_string()),
                reason: text(rejection.reason),
            }),
            report: text(report),
        })
    }

    fn status(&self) -> c_int {
        match self.outcome {
            Ok(_) => ATTESTATION_ACCEPTED,
            Err(_) => ATTESTATION_REFUSED,
        }
    }

    fn evidence(&self) -> *const Evidence {
        self.outcome.as_ref().map_or(ptr::null(), ptr::from_ref)
    }

    fn rule(&self) -> *const c_char {
        let refusal = self.outcome.as_ref().err();
        refusal.map_or(ptr::null(), |refusal| refusal.rule.as_ptr())
    }

    fn reason(&self) -> *const c_char {
        let refusal = self.outcome.as_ref().err();
        refusal.map_or(ptr::null(), |refusal| refusal.reason.as_ptr())
    }
}

/// Verifies a live document, which must carry the nonce of this challenge: 32 random
/// bytes, say, that were drawn for it alone.
///
/// Returns `ATTESTATION_ACCEPTED`, which is 0, only if the document keeps every rule now.
/// Whether it is accepted or refused, `verification`, unless it is null, gets what
/// `attestation_verification_free` frees. After `ATTESTATION_UNUSABLE` it gets null, and
/// `error`, unless it is null, a text that `attestation_string_free` frees; otherwise
/// `error` gets null.
///
/// # Safety
///
/// `verifier` and `policy` are null or come from this library and have not been freed.
/// `document` has `document_length` bytes, and `nonce` has `nonce_length`.
/// `verification` and `error` are null or can be written to.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn attestation_verify(
    verifier: *const Verifier,
    policy: *const Policy,
    document: *const u8,
    document_length: usize,
    nonce: *const u8,
    nonce_length: usize,
    verification: *mut *mut Verification,
    error: *mut *mut c_char,
) -> c_int {
    let verify = || {
        // SAFETY: the caller vouches for the length; null is refused.
        let nonce = unsafe { bytes(nonce, nonce_length, "nonce")? };
        match nonce.len() {
            0 => return Err("nonce is empty: draw one for each challenge".to_owned()),
            length if length > MAX_NONCE => {
                return Err(format!(
                    "nonce has {length} bytes, at most {MAX_NONCE} are allowed"
                ));
            }
            _ => {}
        }
        // SAFETY: the caller vouches for the other arguments.
        unsafe {
            live(
                verifier,
                policy,
                document,
                document_length,
                Nonce::Fresh(nonce),
            )
        }
    };
    // SAFETY: the caller vouches for both.
    unsafe { judge(verification, error, verify) }
}

/// As `attestation_verify`, for a document that answers no challenge: it may be a copy, as
/// old as the policy's `max_age` allows. A policy that demands a nonce refuses it.
///
/// # Safety
///
/// As for `attestation_verify`.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn attestation_verify_unchallenged(
    verifier: *const Verifier,
    policy: *const Policy,
    document: *const u8,
    document_length: usize,
    verification: *mut *mut Verification,
    error: *mut *mut c_char,
) -> c_int {
    let verify = || {
        // SAFETY: the caller vouches for them.
        unsafe {
            live(
                verifier,
                policy,
                document,
                document_length,
                Nonce::Unchallenged,
            )
        }
    };
    // SAFETY: the caller vouches for both.
    unsafe { judge(verification, error, verify) }
}

/// Checks an archived document as of another time, in milliseconds since 1970. There is
/// no challenge: a nonce that the document must carry is one that the policy states.
///
/// Returns `ATTESTATION_ACCEPTED`, which is 0, only if the document kept every rule at
/// that time. The rest is as for `attestation_verify`; `attestation_audit_free` frees the
/// audit.
///
/// # Safety
///
/// As for `attestation_verify`, with `audit` in the place of `verification`.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn attestation_audit_at(
    verifier: *const Verifier,
    policy: *const Policy,
    document: *const u8,
    document_length: usize,
    time_ms: u64,
    audit: *mut *mut Audit,
    error: *mut *mut c_char,
) -> c_int {
    let check = || {
        let time = AuditTime::At(time_ms);
        // SAFETY: the caller vouches for them.
        unsafe { archived(verifier, policy, document, document_length, time) }
    };
    // SAFETY: the caller vouches for both.
    unsafe { judge(audit, error, check) }
}

/// As `attestation_audit_at`, as of the document's own time: whether it was good when it
/// was made. It says nothing about when that was.
///
/// # Safety
///
/// As for `attestation_audit_at`.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn attestation_audit_of_document(
    verifier: *const Verifier,
    policy: *const Policy,
    document: *const u8,
    document_length: usize,
    audit: *mut *mut Audit,
    error: *mut *mut c_char,
) -> c_int {
    let check = || {
        let time = AuditTime::OfDocument;
        // SAFETY: the caller vouches for them.
        unsafe { archived(verifier, policy, document, document_length, time) }
    };
    // SAFETY: the caller vouches for both.
    unsafe { judge(audit, error, check) }
}

/// # Safety
///
/// As for `attestation_verify`.
unsafe fn live(
    verifier: *const Verifier,
    policy: *const Policy,
    document: *const u8,
    length: usize,
    nonce: Nonce<'_>,
) -> Result<(c_int, Verification), String> {
    // SAFETY: the caller vouches for them; null is refused.
    let (verifier, policy, document) = unsafe { given(verifier, policy, document, length)? };
    let verification = verifier.verify(document, policy, nonce);
    let outcome = verification.outcome;
    let outcome = outcome.map(|accepted| Evidence::from(&*accepted));
    let judgement = Judgement::new(&verification.report, outcome)?;
    Ok((judgement.status(), Verification(judgement)))
}

/// # Safety
///
/// As for `attestation_audit_at`.
unsafe fn archived(
    verifier: *const Verifier,
    policy: *const Policy,
    document: *const u8,
    length: usize,
    time: AuditTime,
) -> Result<(c_int, Audit), String> {
    // SAFETY: the caller vouches for them; null is refused.
    let (verifier, policy, document) = unsafe { given(verifier, policy, document, length)? };
    let audit = verifier.audit(document, policy, time);
    let outcome = audit.outcome.map(|audited| Evidence::from(&*audited));
    let judgement = Judgement::new(&audit.report, outcome)?;
    Ok((judgement.status(), Audit(judgement)))
}

/// # Safety
///
/// The pointers are null or come from this library and live during `'a`; `document` has
/// `length` bytes, which nobody changes meanwhile.
unsafe fn given<'a>(
    verifier: *const Verifier,
    policy: *const Policy,
    document: *const u8,
    length: usize,
) -> Result<(&'a attestation::Verifier, &'a attestation::Policy, &'a [u8]), String> {
    // SAFETY: null, or the caller vouches for them.
    let (verifier, policy) = unsafe { (verifier.as_ref(), policy.as_ref()) };
    let Verifier(verifier) = verifier.ok_or("verifier is null")?;
    let Policy(policy) = policy.ok_or("policy is null")?;
    // SAFETY: the caller vouches for the length; null is refused.
    let document = unsafe { bytes(document, length, "document")? };
    Ok((verifier, policy, document))
}

/// What the accepted document says; null if it was refused, and if `verification` is null.
///
/// # Safety
///
/// `verification` is null or comes from this library and has not been freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn attestation_verification_evidence(
    verification: *const Verification,
) -> *const Evidence {
    // SAFETY: null, or the caller vouches for it.
    let verification = unsafe { verification.as_ref() };
    verification.map_or(ptr::null(), |Verification(judgement)| judgement.evidence())
}

/// The identifier of the first rule that was broken; null if the document was accepted.
///
/// # Safety
///
/// `verification` is null or comes from this library and has not been freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn attestation_verification_rule(
    verification: *const Verification,
) -> *const c_char {
    // SAFETY: null, or the caller vouches for it.
    let verification = unsafe { verification.as_ref() };
    verification.map_or(ptr::null(), |Verification(judgement)| judgement.rule())
}

/// How that rule was broken, in a line for people; null if the document was accepted.
///
/// # Safety
///
/// `verification` is null or comes from this library and has not been freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn attestation_verification_reason(
    verification: *const Verification,
) -> *const c_char {
    // SAFETY: null, or the caller vouches for it.
    let verification = unsafe { verification.as_ref() };
    verification.map_or(ptr::null(), |Verification(judgement)| judgement.reason())
}

/// The report of every check, JSON; null if `verification` is.
///
/// # Safety
///
/// `verification` is null or comes from this library and has not been freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn attestation_verification_report(
    verification: *const Verification,
) -> *const c_char {
    // SAFETY: null, or the caller vouches for it.
    let verification = unsafe { verification.as_ref() };
    verification.map_or(ptr::null(), |Verification(judgement)| {
        judgement.report.as_ptr()
    })
}

/// Frees a verification; null is left alone.
///
/// # Safety
///
/// `verification` is null or comes from this library, and neither it nor what points into
/// it is used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn attestation_verification_free(verification: *mut Verification) {
    // SAFETY: the caller vouches for it.
    unsafe { free(verification) }
}

/// What the document says that was good at that time; null if it was refused, and if
/// `audit` is null.
///
/// # Safety
///
/// `audit` is null or comes from this library and has not been freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn attestation_audit_evidence(audit: *const Audit) -> *const Evidence {
    // SAFETY: null, or the caller vouches for it.
    let audit = unsafe { audit.as_ref() };
    audit.map_or(ptr::null(), |Audit(judgement)| judgement.evidence())
}

/// The identifier of the first rule that was broken; null if there is none.
///
/// # Safety
///
/// `audit` is null or comes from this library and has not been freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn attestation_audit_rule(audit: *const Audit) -> *const c_char {
    // SAFETY: null, or the caller vouches for it.
    let audit = unsafe { audit.as_ref() };
    audit.map_or(ptr::null(), |Audit(judgement)| judgement.rule())
}

/// How that rule was broken, in a line for people; null if none was.
///
/// # Safety
///
/// `audit` is null or comes from this library and has not been freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn attestation_audit_reason(audit: *const Audit) -> *const c_char {
    // SAFETY: null, or the caller vouches for it.
    let audit = unsafe { audit.as_ref() };
    audit.map_or(ptr::null(), |Audit(judgement)| judgement.reason())
}

/// The report of every check, JSON; null if `audit` is.
///
/// # Safety
///
/// `audit` is null or comes from this library and has not been freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn attestation_audit_report(audit: *const Audit) -> *const c_char {
    // SAFETY: null, or the caller vouches for it.
    let audit = unsafe { audit.as_ref() };
    audit.map_or(ptr::null(), |Audit(judgement)| judgement.report.as_ptr())
}

/// Frees an audit; null is left alone.
///
/// # Safety
///
/// `audit` is null or comes from this library, and neither it nor what points into it is
/// used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn attestation_audit_free(audit: *mut Audit) {
    // SAFETY: the caller vouches for it.
    unsafe { free(audit) }
}
