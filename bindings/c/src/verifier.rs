//! Verifiers.

use std::ffi::{CStr, c_char};

use attestation::{Partition, Roots};

use crate::border::{bytes, free, give};

/// What a verifier trusts, and the certificates that it has checked. Keep one.
pub struct Verifier(pub(crate) attestation::Verifier);

/// A verifier that trusts AWS's root for the commercial regions.
///
/// Null only after an internal error; `error`, unless it is null, then gets a text that
/// `attestation_string_free` frees, and null otherwise.
///
/// # Safety
///
/// `error` is null or can be written to.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn attestation_verifier_new(error: *mut *mut c_char) -> *mut Verifier {
    let make = || Ok(Verifier(attestation::Verifier::new(Roots::aws())));
    // SAFETY: the caller vouches for `error`.
    unsafe { give(error, make) }
}

/// A verifier that trusts AWS's root for the regions of a partition: "aws", which
/// `attestation_verifier_new` trusts, or "aws-us-gov", GovCloud (US).
///
/// Null if there is no such partition; `error`, unless it is null, then gets a text that
/// `attestation_string_free` frees, and null otherwise.
///
/// # Safety
///
/// `partition` is null or ends with a zero. `error` is null or can be written to.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn attestation_verifier_for_partition(
    partition: *const c_char,
    error: *mut *mut c_char,
) -> *mut Verifier {
    let make = || {
        if partition.is_null() {
            return Err("partition is null".to_owned());
        }
        // SAFETY: it is not null, and the caller vouches for its end.
        let partition = unsafe { CStr::from_ptr(partition) };
        let partition: Partition = partition.to_string_lossy().parse()?;
        let roots = Roots::partition(partition);
        Ok(Verifier(attestation::Verifier::new(roots)))
    };
    // SAFETY: the caller vouches for `error`.
    unsafe { give(error, make) }
}

/// A verifier that trusts the certificates in `roots`, PEM of `length` bytes, and no
/// others: those of several partitions, as `attest roots --pem` prints them, or such as sign
/// the documents of tests.
///
/// Null if the certificates cannot be used; `error`, unless it is null, then gets a text
/// that `attestation_string_free` frees, and null otherwise.
///
/// # Safety
///
/// `roots` has `length` bytes. `error` is null or can be written to.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn attestation_verifier_with_roots(
    roots: *const u8,
    length: usize,
    error: *mut *mut c_char,
) -> *mut Verifier {
    let make = || {
        // SAFETY: the caller vouches for the length; null is refused.
        let pem = unsafe { bytes(roots, length, "roots")? };
        let roots = Roots::usable_from_pem(pem).map_err(|error| error.to_string())?;
        Ok(Verifier(attestation::Verifier::new(roots)))
    };
    // SAFETY: the caller vouches for `error`.
    unsafe { give(error, make) }
}

/// Frees a verifier; null is left alone.
///
/// # Safety
///
/// `verifier` is null or comes from this library, and is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn attestation_verifier_free(verifier: *mut Verifier) {
    // SAFETY: the caller vouches for it.
    unsafe { free(verifier) }
}
