//! Chains of certificates in a document that nobody signed: the root is pinned,
//! what is below it is any bytes. Nothing is ever authentic, and a verifier
//! that remembers chains refuses by the same rule as one that knows none.

#![no_main]

use std::sync::LazyLock;

use attestation::{AuditTime, Document, Policy, Roots, Verifier};
use fuzz::{assert_readable, within};
use libfuzzer_sys::fuzz_target;

/// Most memory that one input takes, in KiB.
const MEMORY_KIB: usize = 256;
/// Certificates that a document can have below the root.
const MAX_CERTIFICATES: usize = 8;

struct World {
    /// Two roots, DER.
    roots: [Vec<u8>; 2],
    pinned: Roots,
    verifier: Verifier,
    policy: Policy,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let test = include_bytes!("../test-root.pem");
    let aws = include_bytes!("../../attestation/src/aws-nitro-root.pem");
    let both = [test.as_slice(), b"\n", aws.as_slice()].concat();
    let pinned = Roots::from_pem(&both).expect("both roots");
    World {
        roots: [test.as_slice(), aws.as_slice()].map(fuzz::der_of_pem),
        verifier: Verifier::new(pinned.clone()),
        pinned,
        policy: Policy::builder()
            .allow_any_image()
            .build()
            .expect("a policy"),
    }
});

/// A byte that chooses the root, the time of checking in milliseconds, and
/// certificates, each behind its length in two bytes.
fn split(bytes: &[u8]) -> Option<(usize, u64, Vec<&[u8]>)> {
    let (&root, rest) = bytes.split_first()?;
    let (time, mut rest) = rest.split_first_chunk()?;
    let mut certificates = Vec::new();
    while let Some((length, tail)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes(*length)).min(tail.len());
        let (certificate, tail) = tail.split_at(length);
        if certificates.len() < MAX_CERTIFICATES {
            certificates.push(certificate);
        }
        rest = tail;
    }
    Some((
        usize::from(root) % 2,
        u64::from_be_bytes(*time),
        certificates,
    ))
}

fn check(world: &World, bytes: &[u8]) {
    let Some((root, time, certificates)) = split(bytes) else {
        return;
    };
    let Some((leaf, below)) = certificates.split_last() else {
        return;
    };
    let mut cabundle = vec![world.roots[root].as_slice()];
    cabundle.extend(below);
    let document = fuzz::document(&cabundle, leaf);
    let Ok(parsed) = Document::parse(&document) else {
        return;
    };
    assert_eq!(
        parsed.unverified_certificates().collect::<Vec<_>>(),
        [cabundle.as_slice(), &[leaf]].concat()
    );
    let time = AuditTime::At(time);
    let stranger = Verifier::new(world.pinned.clone());
    let audit = stranger.audit(&document, &world.policy, time);
    let rejection = audit.outcome.expect_err("nobody signed it");
    assert_readable(&rejection);
    for _ in 0..2 {
        let audit = world.verifier.audit(&document, &world.policy, time);
        assert_eq!(
            audit.outcome.expect_err("nobody signed it").rule,
            rejection.rule
        );
    }
}

fuzz_target!(|bytes: &[u8]| {
    let world = LazyLock::force(&WORLD);
    within(MEMORY_KIB, || check(world, bytes));
});
