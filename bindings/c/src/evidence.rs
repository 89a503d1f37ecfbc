//! What a document says that was verified.

use std::ffi::{CString, c_char};
use std::ptr;

use attestation::OwnedEvidence;

use crate::border::text;

/// Bytes of a register.
pub const ATTESTATION_PCR_BYTES: usize = 48;

/// What a document says that keeps every rule. Whether it does now, or did at another
/// time, is said by what it was taken from: a verification or an audit.
pub struct Evidence {
    claims: OwnedEvidence,
    profile: CString,
    module_id: CString,
    purpose: Option<CString>,
    partition: Option<CString>,
    pcrs: Vec<(usize, [u8; ATTESTATION_PCR_BYTES])>,
}

impl From<&attestation::Evidence<'_>> for Evidence {
    fn from(evidence: &attestation::Evidence<'_>) -> Self {
        let claims = OwnedEvidence::from(evidence);
        Self {
            profile: text(claims.profile().to_string()),
            module_id: text(claims.module_id()),
            purpose: claims.purpose().map(|purpose| text(purpose.to_string())),
            partition: claims
                .root()
                .partition
                .map(|partition| text(partition.name())),
            pcrs: claims
                .pcrs()
                .map(|(index, pcr)| (index, *pcr.as_bytes()))
                .collect(),
            claims,
        }
    }
}

/// What made the document: "enclave" or "nitro-tpm"; null if `evidence` is.
///
/// # Safety
///
/// `evidence` is null or comes from this library, and what it points into lives.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn attestation_evidence_profile(evidence: *const Evidence) -> *const c_char {
    // SAFETY: null, or the caller vouches for it.
    let evidence = unsafe { evidence.as_ref() };
    evidence.map_or(ptr::null(), |evidence| evidence.profile.as_ptr())
}

/// The enclave's identity; null if `evidence` is.
///
/// # Safety
///
/// `evidence` is null or comes from this library, and what it points into lives.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn attestation_evidence_module_id(
    evidence: *const Evidence,
) -> *const c_char {
    // SAFETY: null, or the caller vouches for it.
    let evidence = unsafe { evidence.as_ref() };
    evidence.map_or(ptr::null(), |evidence| evidence.module_id.as_ptr())
}

/// What the document was made for, such as "workload"; null for a NitroTPM's, and if
/// `evidence` is. It holds as far as the enclave's image is one with `enclave-init`.
///
/// # Safety
///
/// `evidence` is null or comes from this library, and what it points into lives.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn attestation_evidence_purpose(evidence: *const Evidence) -> *const c_char {
    // SAFETY: null, or the caller vouches for it.
    let purpose = unsafe { evidence.as_ref() }.and_then(|evidence| evidence.purpose.as_ref());
    purpose.map_or(ptr::null(), |purpose| purpose.as_ptr())
}

/// The partition of AWS whose root the document's certificates lead to, such as "aws"; null
/// if the root is not AWS's, as in tests, and if `evidence` is null.
///
/// # Safety
///
/// `evidence` is null or comes from this library, and what it points into lives.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn attestation_evidence_partition(
    evidence: *const Evidence,
) -> *const c_char {
    // SAFETY: null, or the caller vouches for it.
    let partition = unsafe { evidence.as_ref() }.and_then(|evidence| evidence.partition.as_ref());
    partition.map_or(ptr::null(), |partition| partition.as_ptr())
}

/// When the document was made, in milliseconds since 1970; 0 if `evidence` is null.
///
/// # Safety
///
/// `evidence` is null or comes from this library, and what it points into lives.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn attestation_evidence_timestamp_ms(evidence: *const Evidence) -> u64 {
    // SAFETY: null, or the caller vouches for it.
    let evidence = unsafe { evidence.as_ref() };
    evidence.map_or(0, |evidence| evidence.claims.timestamp_ms())
}

/// A register, `ATTESTATION_PCR_BYTES` bytes; null if the document does not hold it, and
/// if `evidence` is.
///
/// # Safety
///
/// `evidence` is null or comes from this library, and what it points into lives.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn attestation_evidence_pcr(
    evidence: *const Evidence,
    index: usize,
) -> *const u8 {
    // SAFETY: null, or the caller vouches for it.
    let evidence = unsafe { evidence.as_ref() };
    let pcrs = evidence.map_or(&[][..], |evidence| evidence.pcrs.as_slice());
    let found = pcrs.iter().find(|(number, _)| *number == index);
    found.map_or(ptr::null(), |(_, pcr)| pcr.as_ptr())
}

/// The nonce, and its `length`; null and 0 if there is none, and if `evidence` is null.
///
/// # Safety
///
/// `evidence` is null or comes from this library, and what it points into lives.
/// `length` is null or can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn attestation_evidence_nonce(
    evidence: *const Evidence,
    length: *mut usize,
) -> *const u8 {
    // SAFETY: the caller vouches for both.
    unsafe { field(evidence, length, OwnedEvidence::nonce) }
}

/// What the enclave's software put into the document, and its `length`; null and 0 if
/// there is nothing, and if `evidence` is null. What is empty is not null.
///
/// # Safety
///
/// `evidence` is null or comes from this library, and what it points into lives.
/// `length` is null or can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn attestation_evidence_user_data(
    evidence: *const Evidence,
    length: *mut usize,
) -> *const u8 {
    // SAFETY: the caller vouches for both.
    unsafe { field(evidence, length, OwnedEvidence::user_data) }
}

/// The key that the enclave's software bound to the document, and its `length`; null and
/// 0 if there is none, and if `evidence` is null.
///
/// # Safety
///
/// `evidence` is null or comes from this library, and what it points into lives.
/// `length` is null or can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn attestation_evidence_public_key(
    evidence: *const Evidence,
    length: *mut usize,
) -> *const u8 {
    // SAFETY: the caller vouches for both.
    unsafe { field(evidence, length, OwnedEvidence::public_key) }
}

/// # Safety
///
/// `evidence` is null or comes from this library and lives. `length` is null or can be
/// written to.
unsafe fn field(
    evidence: *const Evidence,
    length: *mut usize,
    of: fn(&OwnedEvidence) -> Option<&[u8]>,
) -> *const u8 {
    // SAFETY: null, or the caller vouches for it.
    let bytes = unsafe { evidence.as_ref() }.and_then(|evidence| of(&evidence.claims));
    if !length.is_null() {
        // SAFETY: it is not null, and the caller vouches for it.
        unsafe { length.write(bytes.map_or(0, <[u8]>::len)) };
    }
    bytes.map_or(ptr::null(), <[u8]>::as_ptr)
}
