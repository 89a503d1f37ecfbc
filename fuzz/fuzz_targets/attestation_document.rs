//! Attestation documents, under AWS's root and a test root: any bytes are
//! refused in one line or keep every rule of form; no bytes but the signed ones
//! are authentic, and those stay so.

#![no_main]

use std::sync::LazyLock;

use attestation::{Document, MAX_DOCUMENT, PCR_COUNT, Roots, Time};
use fuzz::{assert_readable, within};
use libfuzzer_sys::fuzz_target;

/// Most memory that one input takes, in KiB.
const MEMORY_KIB: usize = 128;

static ROOTS: LazyLock<[Roots; 2]> = LazyLock::new(|| {
    let test = include_bytes!("../test-root.pem");
    [Roots::aws(), Roots::from_pem(test).expect("the test root")]
});

/// What a document claims: comparable, and everything is read once.
#[derive(Debug, PartialEq)]
struct Claims {
    module_id: String,
    timestamp_ms: u64,
    pcrs: Vec<Option<[u8; 48]>>,
    bindings: [Option<Vec<u8>>; 3],
    certificates: Vec<Vec<u8>>,
}

fn claims(document: &Document<'_>) -> Claims {
    let bindings = [
        document.unverified_nonce(),
        document.unverified_user_data(),
        document.unverified_public_key(),
    ];
    Claims {
        module_id: document.unverified_module_id().to_owned(),
        timestamp_ms: document.unverified_timestamp_ms(),
        pcrs: (0..PCR_COUNT)
            .map(|index| document.unverified_pcr(index).copied())
            .collect(),
        bindings: bindings.map(|binding| binding.map(<[u8]>::to_vec)),
        certificates: document
            .unverified_certificates()
            .map(<[u8]>::to_vec)
            .collect(),
    }
}

fn check(bytes: &[u8]) {
    let document = match Document::parse(bytes) {
        Ok(document) => document,
        Err(rejection) => return assert_readable(&rejection),
    };
    let parsed = claims(&document);
    assert!(bytes.len() <= MAX_DOCUMENT);
    assert!((1..=255).contains(&parsed.module_id.len()));
    assert!(parsed.timestamp_ms > 0);
    assert!(parsed.pcrs.iter().any(Option::is_some));
    for (binding, limit) in parsed.bindings.iter().zip([512, 512, 1024]) {
        assert!(binding.as_ref().is_none_or(|bytes| bytes.len() <= limit));
    }
    assert!(
        parsed
            .certificates
            .iter()
            .all(|der| (1..=1024).contains(&der.len()))
    );
    // Each root: whoever is authentic under it is so again, at the same instant
    // said in another way, and under no other root.
    let authentic = ROOTS.each_ref().map(|roots| {
        let document = Document::parse(bytes).expect("parsed before");
        match document.authenticate(roots, Time::OfDocument) {
            Ok(authentic) => {
                assert_eq!(claims(authentic.document()), parsed);
                true
            }
            Err(rejection) => {
                assert_readable(&rejection);
                false
            }
        }
    });
    assert_ne!(authentic, [true, true]);
    for (roots, was) in ROOTS.iter().zip(authentic) {
        let at = Time::At(parsed.timestamp_ms);
        let document = Document::parse(bytes).expect("parsed before");
        assert_eq!(document.authenticate(roots, at).is_ok(), was);
    }
}

fuzz_target!(|bytes: &[u8]| {
    LazyLock::force(&ROOTS);
    within(MEMORY_KIB, || check(bytes));
});
