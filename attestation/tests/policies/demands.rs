//! Demands beside images and nonces.

use attestation::{Binding, Nonce, Outcome, Policy, Profile, Purpose, Roots, Rule, Verifier};
use measurements::Pcr;
use nsm::{Request, Response};
use software_nsm::{Identity, SoftwareNsm, TestRoot};

use crate::enclave::{Enclave, ONE, TWO};

#[test]
fn a_purpose_is_met_by_documents_of_that_purpose_only() {
    for (user_data, made_for) in [
        (b"user data".as_slice(), Purpose::Workload),
        (b"", Purpose::Workload),
        (b"enclave-purpose", Purpose::Workload),
        (b"relayed-challenge", Purpose::Workload),
        (
            b"enclave-purpose:relayed-challenge",
            Purpose::RelayedChallenge,
        ),
        (b"enclave-purpose:self-check", Purpose::SelfCheck),
        (b"enclave-purpose:clock", Purpose::Clock),
        (b"enclave-purpose:key-release", Purpose::KeyRelease),
        (b"enclave-purpose:sealing", Purpose::Sealing),
        (b"enclave-purpose:key-request", Purpose::KeyRequest),
        (b"enclave-purpose:key-gift", Purpose::KeyGift),
        (b"enclave-purpose:", Purpose::Unknown),
        (b"enclave-purpose:workload", Purpose::Unknown),
        (b"enclave-purpose:self-check ", Purpose::Unknown),
        (b"enclave-purpose:tls", Purpose::Unknown),
    ] {
        let enclave = Enclave::with_user_data(Some(ONE), user_data);
        for demanded in Purpose::KNOWN {
            let policy = Policy::builder().measurements(ONE).purpose(demanded);
            let refused = (demanded != made_for).then_some(Rule::PolicyPurpose);
            assert_eq!(enclave.refused_by(policy), refused, "{user_data:?}");
            let text = format!("allow_any_image = true\npurpose = \"{demanded}\"");
            let policy = Policy::from_toml(&text).unwrap();
            assert_eq!(enclave.refused(&policy), refused, "{user_data:?}");
        }
        // Not asked for, it is in the report all the same, and in the claims.
        let policy = Policy::builder().measurements(ONE).build().unwrap();
        let verifier = &enclave.verifier;
        let verification = verifier.verify(&enclave.document, &policy, Nonce::Unchallenged);
        let mut checks = verification.report.checks.iter();
        let check = checks.find(|check| check.rule == Rule::PolicyPurpose);
        let check = check.unwrap();
        assert_eq!(check.outcome, Outcome::NotChecked);
        assert_eq!(check.actual, Some(made_for.to_string()));
        assert_eq!(verification.outcome.unwrap().purpose(), Some(made_for));
    }
}

#[test]
fn each_demand_is_met_or_refuses_by_its_name() {
    let enclave = Enclave::running(Some(ONE));
    let any = || Policy::builder().allow_any_image();
    let sha256 = |bytes: &[u8]| {
        aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes)
            .as_ref()
            .to_vec()
    };
    for (policy, refused) in [
        (any(), None),
        (any().pcr(0, ONE.pcr0).pcr(0, TWO.pcr0), None),
        (any().pcr(0, TWO.pcr0), Some(Rule::PolicyPcr(0))),
        (any().pcr(16, Pcr::ZERO), Some(Rule::PolicyPcr(16))),
        (any().nonce(b"nonce".to_vec()), None),
        (any().nonce(b"nonces".to_vec()), Some(Rule::PolicyNonce)),
        (any().require_nonce(), Some(Rule::PolicyNonce)),
        (any().module_id("i-0123456789abcdef0-enc*"), None),
        (
            any().module_id("i-0123456789abcdef1-*"),
            Some(Rule::PolicyModuleId),
        ),
        (any().user_data(b"user data".to_vec()), None),
        (
            any().user_data(b"user".to_vec()),
            Some(Rule::PolicyUserData),
        ),
        (
            any().bind_user_data(Binding::Prefix(b"user".to_vec())),
            None,
        ),
        (
            any().bind_user_data(Binding::Prefix(b"user data and more".to_vec())),
            Some(Rule::PolicyUserData),
        ),
        (
            any().bind_public_key(Binding::Sha256Of(b"public key".to_vec())),
            Some(Rule::PolicyPublicKey),
        ),
        (any().profile(Profile::NitroTpm), Some(Rule::PolicyProfile)),
    ] {
        let shown = format!("{policy:?}");
        assert_eq!(enclave.refused_by(policy), refused, "{shown}");
    }
    // A digest in a document.
    let root = TestRoot::generate().unwrap();
    let roots = Roots::from_pem(root.certificate_pem().as_bytes()).unwrap();
    let identity = Identity {
        instance_id: "i-0".into(),
        enclave_id: "enc0".into(),
        measurements: Some(ONE),
    };
    let answer = SoftwareNsm::new(identity, root)
        .unwrap()
        .answer(Request::Attestation {
            user_data: Some(sha256(b"certificate").into()),
            nonce: None,
            public_key: None,
        });
    let Response::Attestation { document } = answer else {
        panic!("{answer:?}");
    };
    let verifier = Verifier::new(roots);
    let refused = |binding| {
        let policy = any().bind_user_data(binding).build().unwrap();
        let verification = verifier.verify(&document, &policy, Nonce::Unchallenged);
        let rejection = verification.outcome.err();
        rejection.map(|rejection| rejection.rule)
    };
    let certificate = b"certificate".to_vec();
    assert_eq!(refused(Binding::Sha256Of(certificate.clone())), None);
    assert_eq!(
        refused(Binding::Sha384Of(certificate)),
        Some(Rule::PolicyUserData)
    );
}
