//! The signature of a document: ES384 over its COSE `Sig_structure`.

use crate::document::{Document, PROTECTED_HEADER};
use crate::rule::{Rejection, Rule};
use crate::validated::Leaf;

/// Checks that the leaf's key signed the document.
pub(crate) fn check(document: &Document<'_>, leaf: &Leaf) -> Result<(), Rejection> {
    if leaf
        .key
        .signed(&sig_structure(document), document.signature)
    {
        return Ok(());
    }
    Err(Rejection::new(
        Rule::DocumentSignature,
        "the leaf certificate's key did not sign this document",
    ))
}

/// The bytes that the signature covers (RFC 9052, section 4.4).
fn sig_structure(document: &Document<'_>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(document.payload.len() + 32);
    bytes.extend_from_slice(b"\x84\x6aSignature1");
    bytes.push(0x44);
    bytes.extend_from_slice(&PROTECTED_HEADER);
    bytes.push(0x40);
    // A payload of at most 16 KiB has a length of at most two bytes.
    let length = u16::try_from(document.payload.len()).unwrap_or(u16::MAX);
    match length {
        0..24 => bytes.push(0x40 | u8::try_from(length).unwrap_or_default()),
        24..256 => bytes.extend([0x58, u8::try_from(length).unwrap_or_default()]),
        _ => {
            bytes.push(0x59);
            bytes.extend(length.to_be_bytes());
        }
    }
    bytes.extend_from_slice(document.payload);
    bytes
}
