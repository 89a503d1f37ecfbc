//! Which images a policy accepts, and what a report says of those that it does not.

use attestation::{Nonce, Outcome, Policy, PolicyBuilder, Rule};
use measurements::{Measurements, Pcr};

use crate::enclave::{Enclave, ONE, TWO, image};

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
        "another image, closest to 1.1: PCR0 is {}, not {}",
        "09".repeat(48),
        TWO.pcr0
    );
    assert_eq!(failed.actual, Some(expected));
}

/// Who changes the application alone finds the same PCR1, and who builds the same
/// application with another release the same PCR2.
#[test]
fn an_image_that_is_refused_is_said_to_have_the_kernel_or_the_application_of_an_allowed_one() {
    let (one, nine) = (ONE.pcr0, Pcr::new([9; 48]));
    let found = |measurements| {
        let policy = Policy::builder().image("1.0", ONE).build().unwrap();
        let enclave = Enclave::running(Some(measurements));
        let verifier = &enclave.verifier;
        let verification = verifier.verify(&enclave.document, &policy, Nonce::Unchallenged);
        let rejection = verification.outcome.unwrap_err();
        assert_eq!(rejection.rule, Rule::PolicyImage);
        let (parts, registers) = rejection.reason.split_once(": PCR").unwrap();
        assert!(
            registers.contains(&format!(" is {nine}, not ")),
            "{registers}"
        );
        parts.to_owned()
    };
    for (pcr0, pcr1, pcr2, pcr8, expected) in [
        (
            nine,
            one,
            nine,
            None,
            "the same kernel and init (PCR1) with another application (PCR2)",
        ),
        (
            nine,
            one,
            nine,
            Some(nine),
            "the same kernel and init (PCR1) with another application (PCR2)",
        ),
        (
            nine,
            nine,
            one,
            None,
            "the same application (PCR2) with another kernel or init (PCR1)",
        ),
        (
            one,
            one,
            one,
            Some(nine),
            "the same image with another signer, or none (PCR8)",
        ),
        (nine, nine, nine, None, "another image"),
        (nine, one, one, None, "another image"),
    ] {
        let measurements = Measurements {
            pcr0,
            pcr1,
            pcr2,
            pcr8,
        };
        let expected = format!("expected 1.0, found {expected}");
        assert_eq!(found(measurements), expected);
    }
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
