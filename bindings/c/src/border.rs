//! The border to C: bytes and texts in, values and errors out.

use std::ffi::{CString, c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::{ptr, slice};

use crate::ATTESTATION_UNUSABLE;

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

/// Gives what `make` makes, or null and the error.
///
/// # Safety
///
/// `error` is null or can be written to.
pub(crate) unsafe fn give<T>(
    error: *mut *mut c_char,
    make: impl FnOnce() -> Result<T, String>,
) -> *mut T {
    // SAFETY: the caller vouches for `error`.
    unsafe { attempt(error, make) }.map_or(ptr::null_mut(), |value| Box::into_raw(Box::new(value)))
}

/// Gives what `make` makes through `out`, and its status; or null, the error and
/// [`ATTESTATION_UNUSABLE`].
///
/// # Safety
///
/// `out` and `error` are null or can be written to.
pub(crate) unsafe fn judge<T>(
    out: *mut *mut T,
    error: *mut *mut c_char,
    make: impl FnOnce() -> Result<(c_int, T), String>,
) -> c_int {
    // SAFETY: the caller vouches for `out`.
    unsafe { put(out, ptr::null_mut()) };
    // SAFETY: the caller vouches for `error`.
    let Some((status, value)) = (unsafe { attempt(error, make) }) else {
        return ATTESTATION_UNUSABLE;
    };
    if !out.is_null() {
        // SAFETY: the caller vouches for `out`.
        unsafe { put(out, Box::into_raw(Box::new(value))) };
    }
    status
}

/// What `make` makes; writes the error, or null. A panic is an error.
///
/// # Safety
///
/// `error` is null or can be written to.
unsafe fn attempt<T>(
    error: *mut *mut c_char,
    make: impl FnOnce() -> Result<T, String>,
) -> Option<T> {
    // What `make` borrows never changes, so a panic leaves nothing half-done.
    let result = catch_unwind(AssertUnwindSafe(make))
        .unwrap_or_else(|_| Err("an internal error; please report it".to_owned()));
    match result {
        Ok(value) => {
            // SAFETY: the caller vouches for `error`.
            unsafe { put(error, ptr::null_mut()) };
            Some(value)
        }
        Err(reason) => {
            if !error.is_null() {
                // SAFETY: the caller vouches for `error`.
                unsafe { put(error, text(reason).into_raw()) };
            }
            None
        }
    }
}

/// # Safety
///
/// `out` is null or can be written to.
unsafe fn put<T>(out: *mut *mut T, value: *mut T) {
    if !out.is_null() {
        // SAFETY: it is not null, and the caller vouches for it.
        unsafe { out.write(value) };
    }
}

/// # Safety
///
/// `value` is null or comes from [`give`] or [`judge`], and is not used again.
pub(crate) unsafe fn free<T>(value: *mut T) {
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
pub(crate) unsafe fn bytes<'a>(
    start: *const u8,
    length: usize,
    name: &str,
) -> Result<&'a [u8], String> {
    if start.is_null() {
        return Err(format!("{name} is null"));
    }
    if isize::try_from(length).is_err() {
        return Err(format!("{name} cannot have {length} bytes"));
    }
    // SAFETY: it is not null, no longer than memory, and the caller vouches for it.
    Ok(unsafe { slice::from_raw_parts(start, length) })
}

/// A text for C, which ends at the first zero: there is none in it.
pub(crate) fn text(text: impl Into<String>) -> CString {
    CString::new(text.into().replace('\0', "\u{fffd}")).unwrap_or_default()
}
