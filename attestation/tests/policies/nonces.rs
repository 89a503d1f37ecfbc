//! The nonce of the challenge, and that of the policy.

use attestation::{Nonce, Policy, PolicyError, Rule};

use crate::enclave::{Enclave, ONE};

#[test]
fn a_required_nonce_is_the_callers() {
    let enclave = Enclave::running(Some(ONE));
    let policy = Policy::builder()
        .measurements(ONE)
        .require_nonce()
        .build()
        .unwrap();
    assert!(policy.needs_nonce());
    assert_eq!(enclave.refused(&policy), Some(Rule::PolicyNonce));
    let given = policy.with_nonce(b"nonce".to_vec()).unwrap();
    assert!(!given.needs_nonce());
    assert_eq!(enclave.refused(&given), None);
    assert_eq!(policy.with_nonce(Vec::new()), Err(PolicyError::EmptyNonce));
}

#[test]
fn a_nonce_is_what_the_challenge_and_what_the_policy_demands() {
    let enclave = Enclave::running(Some(ONE));
    let policy = || Policy::builder().measurements(ONE);
    let (right, wrong) = (b"nonce".as_slice(), b"another".as_slice());
    let refused = Some(Rule::PolicyNonce);
    for (policy, nonce, expected) in [
        (policy(), Nonce::Unchallenged, None),
        (policy(), Nonce::Fresh(right), None),
        (policy(), Nonce::Fresh(wrong), refused),
        (policy(), Nonce::Fresh(b""), refused),
        (policy(), Nonce::Fresh(b"nonces"), refused),
        (policy().require_nonce(), Nonce::Unchallenged, refused),
        (policy().require_nonce(), Nonce::Fresh(right), None),
        (policy().require_nonce(), Nonce::Fresh(wrong), refused),
        (policy().nonce(right.to_vec()), Nonce::Unchallenged, None),
        (policy().nonce(right.to_vec()), Nonce::Fresh(right), None),
        (policy().nonce(right.to_vec()), Nonce::Fresh(wrong), refused),
        (policy().nonce(wrong.to_vec()), Nonce::Fresh(right), refused),
        (policy().nonce(wrong.to_vec()), Nonce::Unchallenged, refused),
    ] {
        let shown = format!("{policy:?} {nonce:?}");
        let found = enclave.refused_with(&policy.build().unwrap(), nonce);
        assert_eq!(found, expected, "{shown}");
    }
}

#[test]
fn a_nonce_of_no_bytes_is_refused_in_a_document_that_has_one() {
    let enclave = Enclave::with_nonce(b"");
    let policy = Policy::builder().measurements(ONE).build().unwrap();
    let refused = enclave.refused_with(&policy, Nonce::Fresh(b""));
    assert_eq!(refused, Some(Rule::PolicyNonce));
    assert_eq!(enclave.refused_with(&policy, Nonce::Unchallenged), None);
}
