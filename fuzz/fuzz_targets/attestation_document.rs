//! Attestation documents, under AWS's root and a test root: any bytes are
//! refused in one line or keep every rule of form; no bytes but the signed ones
//! are authentic, and those stay so.

#![no_main]

use std::sync::LazyLock;
use std::time::Duration;

use attestation::{
    AuditTime, Document, Evidence, MAX_DOCUMENT, PCR_COUNT, Policy, Profile, Roots, Verifier,
};
use fuzz::{assert_readable, within};
use libfuzzer_sys::fuzz_target;

/// Most memory that one input takes, in KiB.
const MEMORY_KIB: usize = 128;

static VERIFIERS: LazyLock<[Verifier; 2]> = LazyLock::new(|| {
    let test = include_bytes!("../test-root.pem");
    let test = Roots::from_pem(test).expect("the test root");
    [Roots::aws(), test].map(Verifier::new)
});

/// For enclaves and for a NitroTPM: what is authentic is accepted.
static POLICIES: LazyLock<[Policy; 2]> = LazyLock::new(|| {
    let any = Policy::builder()
        .allow_any_image()
        .clock_skew(Duration::ZERO);
    let tpm = any.clone().profile(Profile::NitroTpm);
    [any.allow_debug(), tpm].map(|policy| policy.build().expect("a policy"))
});

/// What a document claims: comparable, and everything is read once.
#[derive(Debug, PartialEq)]
struct Claims {
    module_id: String,
    timestamp_ms: u64,
    pcrs: Vec<Option<[u8; 48]>>,
    bindings: [Option<Vec<u8>>; 3],
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
    }
}

fn evidence(evidence: &Evidence<'_>) -> Claims {
    let bindings = [
        evidence.nonce(),
        evidence.user_data(),
        evidence.public_key(),
    ];
    Claims {
        module_id: evidence.module_id().to_owned(),
        timestamp_ms: evidence.timestamp_ms(),
        pcrs: (0..PCR_COUNT)
            .map(|index| evidence.pcr(index).map(|pcr| *pcr.as_bytes()))
            .collect(),
        bindings: bindings.map(|binding| binding.map(<[u8]>::to_vec)),
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
    for binding in parsed.bindings.iter().flatten() {
        assert!(binding.len() <= 1024);
    }
    assert!(
        document
            .unverified_certificates()
            .all(|der| (1..=1024).contains(&der.len()))
    );
    // Each root: whoever is authentic under it is so again, at the same instant
    // said in another way, and under no other root.
    let [enclave, tpm] = &*POLICIES;
    let policy = match document.unverified_profile() {
        Profile::Enclave => enclave,
        Profile::NitroTpm => tpm,
    };
    let authentic = VERIFIERS.each_ref().map(|verifier| {
        let audit = verifier.audit(bytes, policy, AuditTime::OfDocument);
        match audit.outcome {
            Ok(audited) => {
                assert_eq!(evidence(&audited), parsed);
                true
            }
            Err(rejection) => {
                assert_readable(&rejection);
                false
            }
        }
    });
    assert_ne!(authentic, [true, true]);
    for (verifier, was) in VERIFIERS.iter().zip(authentic) {
        let audit = verifier.audit(bytes, policy, AuditTime::At(parsed.timestamp_ms));
        assert_eq!(audit.outcome.is_ok(), was);
    }
}

fuzz_target!(|bytes: &[u8]| {
    LazyLock::force(&VERIFIERS);
    LazyLock::force(&POLICIES);
    within(MEMORY_KIB, || check(bytes));
});
