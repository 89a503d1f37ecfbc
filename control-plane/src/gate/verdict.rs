//! Whether a document is that of the enclave that was asked for.

use attestation::{
    Nonce, Outcome, Policy, PolicyBuilder, PolicyError, Purpose, Report, Rule, Verification,
    Verifier,
};
use control_plane_model::item::{Image, RUNTIME_CONFIGURATION_PCR, runtime_register};
use measurements::{Measurements, Pcr};
use thiserror::Error;

/// Why an item's image says nothing that a document could be held against.
#[derive(Debug, Error)]
pub enum UnusableImage {
    /// There is none, or it is no JSON of ours.
    #[error("the item's image cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
    /// Its measurements make no policy.
    #[error("the item's measurements cannot be used: {0}")]
    Policy(#[from] PolicyError),
}

/// What the document of an enclave must say besides the nonce of the challenge: the
/// published image, and exactly the runtime configuration that names the enclave. It must
/// have been made for a relayed challenge, so that nothing in it is the agent's choice but
/// the nonce, and nothing the workload's but its identity key.
/// Debug mode, in which all of the image's registers are zero, only if the request
/// allowed it.
pub fn policy(image: &Image) -> Result<Policy, UnusableImage> {
    let demands = demands(image)?.purpose(Purpose::RelayedChallenge);
    Ok(demands.build()?)
}

/// What the document must say that the enclave has verified itself: the same, but that
/// it was made for this, with a nonce that only the enclave knew.
pub(super) fn self_check_policy(image: &Image) -> Result<Policy, UnusableImage> {
    Ok(demands(image)?.purpose(Purpose::SelfCheck).build()?)
}

/// What the document of the key that secrets are sealed to must say: the same, but that
/// it was made for this.
pub(super) fn sealing_policy(image: &Image) -> Result<Policy, UnusableImage> {
    Ok(demands(image)?.purpose(Purpose::Sealing).build()?)
}

/// What every document of the enclave must say.
fn demands(image: &Image) -> Result<PolicyBuilder, UnusableImage> {
    let measurements: Measurements = serde_json::from_str(&image.published.measurements)?;
    let builder = Policy::builder().pcr(
        RUNTIME_CONFIGURATION_PCR,
        runtime_register(&image.runtime_configuration),
    );
    if !image.enable_debug {
        return Ok(builder.image(image.published.reference.as_str(), measurements));
    }
    // Registers of zeros say nothing of what runs: that is what the request allowed.
    let mut builder = builder.allow_any_image().allow_debug();
    for (index, value) in [
        (0, measurements.pcr0),
        (1, measurements.pcr1),
        (2, measurements.pcr2),
        (8, measurements.pcr8.unwrap_or(Pcr::ZERO)),
    ] {
        builder = builder.pcr(index, value).pcr(index, Pcr::ZERO);
    }
    Ok(builder)
}

/// How a document was found.
#[derive(Debug)]
pub enum Verdict {
    /// It is what was asked for.
    Accepted,
    /// It is not, but the enclave may yet send one that is.
    Refused(String),
    /// The enclave answered this very challenge, and is another one: waiting would
    /// not help.
    Wrong(String),
}

/// Verifies the document that answers the challenge of this nonce, now.
pub fn judge(
    document: &[u8],
    verifier: &Verifier,
    policy: &Policy,
    nonce: &[u8],
) -> (Verdict, Report) {
    verdict(verifier.verify(document, policy, Nonce::Fresh(nonce)))
}

fn verdict(verification: Verification<'_>) -> (Verdict, Report) {
    let report = verification.report;
    let verdict = match &report.rejection {
        None if report.accepted => Verdict::Accepted,
        None => Verdict::Refused("it was not accepted".to_owned()),
        Some(rejection) => {
            let passed = |rule| {
                report
                    .checks
                    .iter()
                    .any(|check| check.rule == rule && check.outcome == Outcome::Passed)
            };
            let measured = matches!(
                rejection.rule,
                Rule::PolicyImage | Rule::PolicyPcr(_) | Rule::PolicyDebug
            );
            let message = rejection.to_string();
            if measured && passed(Rule::DocumentSignature) && passed(Rule::PolicyNonce) {
                Verdict::Wrong(message)
            } else {
                Verdict::Refused(message)
            }
        }
    };
    (verdict, report)
}

#[cfg(test)]
mod tests {
    use attestation::Roots;
    use aws_lc_rs::digest::{SHA384, digest};
    use nsm::{Request, Response};
    use software_nsm::{Identity, SoftwareNsm, TestRoot};

    use super::*;
    use control_plane_model::item::{PublishedImage, runtime_configuration};

    const NONCE: [u8; 32] = [7; 32];

    fn measurements(fill: u8) -> Measurements {
        Measurements {
            pcr0: Pcr::new([fill; 48]),
            pcr1: Pcr::new([fill + 1; 48]),
            pcr2: Pcr::new([fill + 2; 48]),
            pcr8: None,
        }
    }

    fn image(enable_debug: bool) -> Image {
        Image {
            published: PublishedImage {
                reference: "app:1".to_owned(),
                bucket: "b".to_owned(),
                key: "k".to_owned(),
                sha256: "s".to_owned(),
                size: 1,
                measurements: serde_json::to_string(&measurements(1)).unwrap(),
                architecture: "x86_64".to_owned(),
            },
            runtime_configuration: runtime_configuration("e-1"),
            enable_debug,
        }
    }

    /// An enclave that was given this configuration, and its document.
    fn document(
        measured: Option<Measurements>,
        configuration: &str,
        nonce: &[u8],
    ) -> (Vec<u8>, Roots) {
        let user_data = Purpose::RelayedChallenge.user_data();
        document_with(measured, configuration, nonce, user_data)
    }

    fn document_with(
        measured: Option<Measurements>,
        configuration: &str,
        nonce: &[u8],
        user_data: Option<Vec<u8>>,
    ) -> (Vec<u8>, Roots) {
        let root = TestRoot::generate().unwrap();
        let roots = Roots::from_pem(root.certificate_pem().as_bytes()).unwrap();
        let identity = Identity {
            instance_id: "i-0123456789abcdef0".to_owned(),
            enclave_id: "enc0123456789abcdef".to_owned(),
            measurements: measured,
        };
        let mut module = SoftwareNsm::new(identity, root).unwrap();
        let index = u16::from(RUNTIME_CONFIGURATION_PCR);
        let data = digest(&SHA384, configuration.as_bytes()).as_ref().to_vec();
        module.answer(Request::ExtendPCR { index, data });
        module.answer(Request::LockPCR { index });
        let request = Request::Attestation {
            user_data: user_data.map(Into::into),
            nonce: Some(nonce.to_vec().into()),
            public_key: None,
        };
        match module.answer(request) {
            Response::Attestation { document } => (document, roots),
            other => panic!("{other:?}"),
        }
    }

    fn judged(document: &[u8], roots: Roots, policy: &Policy) -> (Verdict, Report) {
        judge(document, &Verifier::new(roots), policy, &NONCE)
    }

    fn found(
        measured: Option<Measurements>,
        configuration: &str,
        nonce: &[u8],
        debug: bool,
    ) -> Verdict {
        let (document, roots) = document(measured, configuration, nonce);
        judged(&document, roots, &policy(&image(debug)).unwrap()).0
    }

    #[test]
    fn the_enclave_that_was_asked_for_is_accepted() {
        let own = runtime_configuration("e-1");
        assert!(matches!(
            found(Some(measurements(1)), &own, &NONCE, false),
            Verdict::Accepted
        ));
    }

    #[test]
    fn clock_skew_is_kept_where_the_gate_is_behind_the_hypervisor() {
        let (document, roots) =
            document(Some(measurements(1)), &runtime_configuration("e-1"), &NONCE);
        let made = attestation::Document::parse(&document)
            .unwrap()
            .unverified_timestamp_ms();
        let policy = policy(&image(false)).unwrap();
        let verifier = Verifier::new(roots);
        let behind = |milliseconds| {
            let now_ms = made - milliseconds;
            verdict(verifier.verify_at(&document, &policy, Nonce::Fresh(&NONCE), now_ms)).0
        };
        assert!(matches!(behind(59_000), Verdict::Accepted));
        match behind(61_000) {
            Verdict::Refused(why) => assert!(why.contains("the clock is 61 s behind"), "{why}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn another_image_or_another_configuration_is_wrong_for_good() {
        let own = runtime_configuration("e-1");
        for (measured, configuration) in [
            (Some(measurements(9)), own.clone()),
            (Some(measurements(1)), runtime_configuration("e-2")),
            (None, own),
        ] {
            let verdict = found(measured, &configuration, &NONCE, false);
            assert!(matches!(verdict, Verdict::Wrong(_)), "{verdict:?}");
        }
    }

    #[test]
    fn a_document_for_another_nonce_or_of_another_root_changes_nothing() {
        let own = runtime_configuration("e-1");
        let stale = found(Some(measurements(9)), &own, &[8; 32], false);
        assert!(matches!(stale, Verdict::Refused(_)), "{stale:?}");
        let (document, _) = document(Some(measurements(9)), &own, &NONCE);
        let policy = policy(&image(false)).unwrap();
        let (foreign, _) = judged(&document, Roots::aws(), &policy);
        assert!(matches!(foreign, Verdict::Refused(_)), "{foreign:?}");
        let (noise, _) = judged(b"noise", Roots::aws(), &policy);
        assert!(matches!(noise, Verdict::Refused(_)), "{noise:?}");
    }

    #[test]
    fn a_document_that_was_made_for_something_else_changes_nothing() {
        let own = runtime_configuration("e-1");
        let policy = policy(&image(false)).unwrap();
        for user_data in [
            None,
            Purpose::SelfCheck.user_data(),
            Some(b"enclave-purpose:relayed-challenge ".to_vec()),
            Some(b"the workload's".to_vec()),
        ] {
            let (document, roots) = document_with(Some(measurements(1)), &own, &NONCE, user_data);
            let (verdict, report) = judged(&document, roots, &policy);
            assert!(matches!(verdict, Verdict::Refused(_)), "{verdict:?}");
            let rule = report.rejection.map(|rejection| rejection.rule);
            assert_eq!(rule, Some(Rule::PolicyPurpose));
        }
    }

    #[test]
    fn debug_mode_passes_only_where_the_request_allowed_it() {
        let own = runtime_configuration("e-1");
        assert!(matches!(found(None, &own, &NONCE, true), Verdict::Accepted));
        assert!(matches!(
            found(Some(measurements(1)), &own, &NONCE, true),
            Verdict::Accepted
        ));
        assert!(matches!(
            found(Some(measurements(9)), &own, &NONCE, true),
            Verdict::Wrong(_)
        ));
        assert!(matches!(
            found(None, &runtime_configuration("e-2"), &NONCE, true),
            Verdict::Wrong(_)
        ));
    }

    #[test]
    fn an_image_without_measurements_makes_no_policy() {
        let mut image = image(false);
        image.published.measurements = "{}".to_owned();
        assert!(policy(&image).is_err());
    }
}
