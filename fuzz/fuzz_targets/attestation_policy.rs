//! Policies: any text is refused in one line, or is a policy, the same in TOML
//! and in JSON, that decides about a document.

#![no_main]

use std::sync::LazyLock;

use attestation::{AuditTime, Policy, PolicyError, Roots, Verifier};
use fuzz::{assert_readable, within};
use libfuzzer_sys::fuzz_target;

/// Most memory that one input takes, in KiB, beyond what the TOML parser takes to
/// describe what is wrong with a text: some 340 bytes for each of its bytes.
const MEMORY_KIB: usize = 1024;
const BYTES_PER_BYTE: usize = 512;

const DOCUMENT: &[u8] = include_bytes!("../../attestation/corpus/aws/a72552688ab6de06.cbor");

static VERIFIER: LazyLock<Verifier> = LazyLock::new(|| Verifier::new(Roots::aws()));

fn read(policy: Result<Policy, PolicyError>) -> Option<Policy> {
    policy.inspect_err(assert_readable).ok()
}

fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let (toml, json) = (read(Policy::from_toml(text)), read(Policy::from_json(text)));
    if let Some(policy) = &toml {
        let value: serde_json::Value = toml::from_str(text).expect("it was read before");
        let same = Policy::from_json(&value.to_string());
        assert_eq!(same.as_ref(), Ok(policy));
    }
    for policy in [toml, json].into_iter().flatten() {
        assert_eq!(policy.to_builder().build().as_ref(), Ok(&policy));
        if policy.needs_nonce() {
            let with_nonce = policy.with_nonce(vec![1]).expect("a nonce");
            assert!(!with_nonce.needs_nonce());
        }
        let audit = VERIFIER.audit(DOCUMENT, &policy, AuditTime::OfDocument);
        assert_eq!(audit.report.accepted, audit.outcome.is_ok());
        if policy.needs_nonce() {
            assert!(!audit.report.accepted);
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    LazyLock::force(&VERIFIER);
    within(MEMORY_KIB + bytes.len() * BYTES_PER_BYTE / 1024, || {
        check(bytes)
    });
});
