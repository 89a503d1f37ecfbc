//! Calls whose instructions `cargo xtask bench instructions` counts, each of
//! them a function that callgrind finds by its name.

#![forbid(unsafe_code)]

use std::hint::black_box;

use attestation::{AuditTime, Document, Policy, Roots, Verifier};

const DOCUMENT: &[u8] = include_bytes!("../../../../corpus/aws/3a4a0301e6aa2839.cbor");

fn main() {
    let call = std::env::args().nth(1).unwrap_or_default();
    let policy = Policy::builder()
        .allow_any_image()
        .build()
        .expect("a policy");
    let (verifier, stranger) = (Verifier::new(Roots::aws()), Verifier::new(Roots::aws()));
    // What happens once in a process: aws-lc looks at the processor, and so on.
    let known = verifier.audit(DOCUMENT, &policy, AuditTime::OfDocument);
    assert!(known.outcome.is_ok());
    match call.as_str() {
        "parse" => parse(DOCUMENT),
        "leaf_known" => leaf_known(DOCUMENT, &verifier, &policy),
        "cold" => cold(DOCUMENT, &stranger, &policy),
        other => panic!("there is no call {other:?}"),
    }
}

#[inline(never)]
fn parse(document: &[u8]) {
    black_box(Document::parse(black_box(document)).expect("a document"));
}

#[inline(never)]
fn leaf_known(document: &[u8], verifier: &Verifier, policy: &Policy) {
    let audit = verifier.audit(black_box(document), policy, AuditTime::OfDocument);
    assert!(audit.outcome.is_ok());
}

#[inline(never)]
fn cold(document: &[u8], stranger: &Verifier, policy: &Policy) {
    let audit = stranger.audit(black_box(document), policy, AuditTime::OfDocument);
    assert!(audit.outcome.is_ok());
}
