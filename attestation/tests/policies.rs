//! What policies accept.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use attestation::{
    Binding, Nonce, Outcome, Policy, PolicyBuilder, PolicyError, Profile, Purpose, Roots, Rule,
    Verifier,
};
use measurements::{Measurements, Pcr};
use nsm::{Request, Response};
use software_nsm::{Identity, SoftwareNsm, TestRoot};

const ONE: Measurements = image(1);
const TWO: Measurements = image(2);

const fn image(byte: u8) -> Measurements {
    Measurements {
        pcr0: Pcr::new([byte; 48]),
        pcr1: Pcr::new([byte; 48]),
        pcr2: Pcr::new([byte; 48]),
        pcr8: None,
    }
}

/// An enclave that runs this image.
struct Enclave {
    document: Vec<u8>,
    verifier: Verifier,
}

impl Enclave {
    fn running(measurements: Option<Measurements>) -> Self {
        Self::with_user_data(measurements, b"user data")
    }

    fn with_user_data(measurements: Option<Measurements>, user_data: &[u8]) -> Self {
        Self::asked(measurements, user_data, b"nonce")
    }

    fn with_nonce(nonce: &[u8]) -> Self {
        Self::asked(Some(ONE), b"user data", nonce)
    }

    fn asked(measurements: Option<Measurements>, user_data: &[u8], nonce: &[u8]) -> Self {
        let root = TestRoot::generate().unwrap();
        let roots = Roots::from_pem(root.certificate_pem().as_bytes()).unwrap();
        let identity = Identity {
            instance_id: "i-0123456789abcdef0".into(),
            enclave_id: "enc0123456789abcdef".into(),
            measurements,
        };
        let answer = SoftwareNsm::new(identity, root)
            .unwrap()
            .answer(Request::Attestation {
                user_data: Some(user_data.to_vec().into()),
                nonce: Some(nonce.to_vec().into()),
                public_key: Some(b"public key".to_vec().into()),
            });
        let Response::Attestation { document } = answer else {
            panic!("{answer:?}");
        };
        Self {
            document,
            verifier: Verifier::new(roots),
        }
    }

    fn refused_by(&self, policy: PolicyBuilder) -> Option<Rule> {
        self.refused(&policy.build().unwrap())
    }

    fn refused(&self, policy: &Policy) -> Option<Rule> {
        self.refused_with(policy, Nonce::Unchallenged)
    }

    fn refused_with(&self, policy: &Policy, nonce: Nonce<'_>) -> Option<Rule> {
        let verification = self.verifier.verify(&self.document, policy, nonce);
        let rejection = verification.outcome.err();
        rejection.map(|rejection| rejection.rule)
    }
}

#[test]
fn the_registers_of_two_images_do_not_mix() {
    let both = || Policy::builder().measurements(ONE).measurements(TWO);
    for (measurements, refused) in [
        (ONE, None),
        (TWO, None),
        (image(3), Some(Rule::PolicyImage)),
        (
            Measurements {
                pcr2: TWO.pcr2,
                ..ONE
            },
            Some(Rule::PolicyImage),
        ),
        (
            Measurements {
                pcr8: Some(Pcr::new([8; 48])),
                ..ONE
            },
            Some(Rule::PolicyImage),
        ),
    ] {
        let enclave = Enclave::running(Some(measurements));
        assert_eq!(enclave.refused_by(both()), refused, "{measurements:?}");
    }
    let signed = Measurements {
        pcr8: Some(Pcr::new([8; 48])),
        ..ONE
    };
    let policy = Policy::builder().measurements(signed);
    let refused = |measurements| Enclave::running(Some(measurements)).refused_by(policy.clone());
    assert_eq!(refused(signed), None);
    assert_eq!(refused(ONE), Some(Rule::PolicyImage));
}

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
fn a_report_names_the_image_or_the_registers_that_differ() {
    let check = |measurements| {
        let enclave = Enclave::running(Some(measurements));
        let policy = Policy::builder()
            .image("1.0", ONE)
            .image("1.1", TWO)
            .build()
            .unwrap();
        let verifier = &enclave.verifier;
        let verification = verifier.verify(&enclave.document, &policy, Nonce::Unchallenged);
        let report = verification.report;
        let mut checks = report.checks.into_iter();
        checks
            .find(|check| check.rule == Rule::PolicyImage)
            .unwrap()
    };
    let passed = check(TWO);
    assert_eq!(passed.outcome, Outcome::Passed);
    assert_eq!(passed.expected.as_deref(), Some("1.0 or 1.1"));
    assert_eq!(passed.actual.as_deref(), Some("1.1"));
    let failed = check(Measurements {
        pcr0: Pcr::new([9; 48]),
        ..TWO
    });
    assert_eq!(failed.outcome, Outcome::Failed);
    let expected = format!(
        "closest is 1.1: PCR0 is {}, not {}",
        "09".repeat(48),
        TWO.pcr0
    );
    assert_eq!(failed.actual, Some(expected));
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

#[test]
fn an_image_does_not_pass_for_a_debug_enclave() {
    let enclave = Enclave::running(None);
    let policy = || Policy::builder().measurements(ONE);
    assert_eq!(enclave.refused_by(policy()), Some(Rule::PolicyDebug));
    assert_eq!(
        enclave.refused_by(policy().allow_debug()),
        Some(Rule::PolicyImage)
    );
    let any = || Policy::builder().allow_any_image();
    assert_eq!(enclave.refused_by(any()), Some(Rule::PolicyDebug));
    assert_eq!(enclave.refused_by(any().allow_debug()), None);
}

/// A certificate's SHA-384 fingerprint is measured into PCR8, and is not its value.
#[test]
fn a_value_that_was_measured_into_the_register_gets_a_hint() {
    let fingerprint = Pcr::new([5; 48]);
    let signed = Measurements {
        pcr8: Some(Pcr::ZERO.extend(fingerprint.as_bytes())),
        ..ONE
    };
    let enclave = Enclave::running(Some(signed));
    let reason = |policy: PolicyBuilder| {
        let policy = policy.build().unwrap();
        let verifier = &enclave.verifier;
        let verification = verifier.verify(&enclave.document, &policy, Nonce::Unchallenged);
        verification.outcome.unwrap_err().reason
    };
    let hint = "`attest pcr --certificate FILE` computes PCR8";
    let other = reason(Policy::builder().pcr(8, Pcr::new([6; 48])));
    assert!(!other.contains("attest pcr"), "{other}");
    let given = reason(Policy::builder().pcr(8, fingerprint));
    assert!(given.contains(hint), "{given}");
    let image = Measurements {
        pcr8: Some(fingerprint),
        ..ONE
    };
    let given = reason(Policy::builder().image("1.0", image));
    assert!(given.contains(hint), "{given}");
    let instance = Policy::builder().measurements(signed);
    let instance = reason(instance.pcr(4, Pcr::new([4; 48])));
    assert!(!instance.contains("measured into"), "{instance}");
}

#[test]
fn a_report_says_whether_the_policy_names_code() {
    let enclave = Enclave::running(Some(ONE));
    for (policy, names_code) in [
        (Policy::builder().measurements(ONE), true),
        (Policy::builder().pcr(0, ONE.pcr0), true),
        (Policy::builder().allow_any_image(), false),
        (Policy::builder().allow_any_image().pcr(1, ONE.pcr1), false),
        (Policy::builder().allow_any_image().pcr(0, ONE.pcr0), true),
    ] {
        let policy = policy.build().unwrap();
        let report = |document| {
            let verifier = &enclave.verifier;
            verifier
                .verify(document, &policy, Nonce::Unchallenged)
                .report
        };
        let accepted = report(&enclave.document);
        assert!(accepted.accepted);
        assert_eq!(accepted.names_code, names_code);
        let report = report(b"");
        assert_eq!(report.names_code, names_code);
    }
}
