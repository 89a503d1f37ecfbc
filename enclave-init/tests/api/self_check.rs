//! The enclave's verification of its own document, with modules that lie.

use attestation::{Nonce, Policy, Purpose, Roots, Verifier};
use link::control::{CheckOutcome, EndCause, FromInit};
use link::logs::LogStream;
use nsm::{ErrorCode, Request, Response};
use serde_json::json;
use software_nsm::{SoftwareNsm, TestRoot};

use crate::agent::Control;
use crate::enclave::{Image, MEASUREMENTS, ending, message};
use crate::module::Lie;

/// What the init tells of the check: outcome, rule, detail and document.
type Told = (CheckOutcome, String, String, Vec<u8>);

async fn told(control: &mut Control) -> Told {
    message(control, |message| match message {
        FromInit::SelfCheck {
            outcome,
            rule,
            detail,
            document,
        } => Some((
            *outcome,
            rule.to_string(),
            detail.to_string(),
            document.to_vec(),
        )),
        _ => None,
    })
    .await
}

fn image() -> Image {
    Image::new(&["say started", "wait"])
}

/// A module that answers as this says, and honestly where it says nothing.
fn lies(
    mut lie: impl FnMut(&mut SoftwareNsm, &Request) -> Option<Response> + Send + 'static,
) -> Lie {
    Box::new(move |module, request| lie(module, &request).unwrap_or_else(|| module.answer(request)))
}

/// The module's document for a changed request.
fn attest(
    module: &mut SoftwareNsm,
    request: &Request,
    change: impl FnOnce(&mut Request),
) -> Response {
    let mut request = clone(request);
    change(&mut request);
    module.answer(request)
}

/// Requests cannot be cloned as they are.
fn clone(request: &Request) -> Request {
    let mut bytes = Vec::new();
    ciborium::into_writer(request, &mut bytes).unwrap();
    ciborium::from_reader(bytes.as_slice()).unwrap()
}

fn is_attestation(request: &Request) -> bool {
    matches!(request, Request::Attestation { .. })
}

/// A module whose documents are changed once they are made.
fn forges(change: impl Fn(Vec<u8>) -> Vec<u8> + Send + 'static) -> Lie {
    Box::new(move |module, request| match module.answer(request) {
        Response::Attestation { document } => Response::Attestation {
            document: change(document),
        },
        response => response,
    })
}

/// A module that says of a register's lock what is not so.
fn misstates_lock(register: u16, said: bool) -> Lie {
    lies(move |module, request| match request {
        Request::DescribePCR { index } if *index == register => {
            match module.answer(clone(request)) {
                Response::DescribePCR { data, .. } => {
                    Some(Response::DescribePCR { lock: said, data })
                }
                other => Some(other),
            }
        }
        _ => None,
    })
}

/// A lie by its name, an image that is told it, and the rule that it breaks.
type Case = (&'static str, Image, &'static str);

/// Every lie.
fn every_lie() -> Vec<Case> {
    let other_root = TestRoot::generate().unwrap().certificate_pem().to_owned();
    let mut lies = vec![
        ("another root", image().root(other_root), "chain.root"),
        ("debug mode", image().debug_not_allowed(), "policy.debug"),
    ];
    lies.extend(register_lies());
    lies.extend(request_lies());
    lies.extend(document_lies());
    lies
}

/// Of a register's value or its lock.
fn register_lies() -> Vec<Case> {
    vec![
        (
            "a register that differs",
            image().module(lies(|_, request| match request {
                Request::DescribePCR { index: 3 } => Some(Response::DescribePCR {
                    lock: true,
                    data: vec![9; 48],
                }),
                _ => None,
            })),
            "policy.pcr.3",
        ),
        (
            "a register that is said to be unlocked",
            image().module(misstates_lock(20, false)),
            "policy.pcr.20",
        ),
        (
            "an open register that is said to be locked",
            image()
                .with("/attestation", json!({"open_registers": [20]}))
                .module(misstates_lock(20, true)),
            "policy.pcr.20",
        ),
        (
            "an open register in the document",
            image()
                .with("/attestation", json!({"open_registers": [17]}))
                .module(lies(|module, request| {
                    if is_attestation(request) {
                        module.answer(Request::LockPCR { index: 17 });
                    }
                    None
                })),
            "policy.pcr.17",
        ),
        (
            "a register that is not in the document",
            // The module locks nothing, and says that it has.
            image().module(Box::new(|module, request| match request {
                Request::LockPCRs { .. } => Response::LockPCRs,
                Request::DescribePCR { index } => match module.answer(request) {
                    Response::DescribePCR { data, lock } => Response::DescribePCR {
                        lock: lock || index > 16,
                        data,
                    },
                    other => other,
                },
                request => module.answer(request),
            })),
            "policy.pcr.17",
        ),
    ]
}

/// Documents for another request than the init's.
fn request_lies() -> Vec<Case> {
    vec![
        (
            "a nonce that is not echoed",
            image().module(lies(|module, request| {
                is_attestation(request).then(|| {
                    attest(module, request, |request| {
                        if let Request::Attestation { nonce, .. } = request {
                            *nonce = None;
                        }
                    })
                })
            })),
            "policy.nonce",
        ),
        (
            "a document that is replayed",
            image().module({
                let mut recorded = None;
                lies(move |module, request| {
                    if !is_attestation(request) {
                        return None;
                    }
                    let recorded = recorded.get_or_insert_with(|| {
                        let earlier = attest(module, request, |request| {
                            if let Request::Attestation { nonce, .. } = request {
                                *nonce = Some(vec![1; 32].into());
                            }
                        });
                        match earlier {
                            Response::Attestation { document } => document,
                            other => panic!("{other:?}"),
                        }
                    });
                    let document = recorded.clone();
                    Some(Response::Attestation { document })
                })
            }),
            "policy.nonce",
        ),
        (
            "a document for another purpose",
            image().module(lies(|module, request| {
                is_attestation(request).then(|| {
                    attest(module, request, |request| {
                        if let Request::Attestation { user_data, .. } = request {
                            *user_data = None;
                        }
                    })
                })
            })),
            "policy.purpose",
        ),
        (
            "a key that nobody gave",
            image().module(lies(|module, request| {
                is_attestation(request).then(|| {
                    attest(module, request, |request| {
                        if let Request::Attestation { public_key, .. } = request {
                            *public_key = Some(vec![1; 32].into());
                        }
                    })
                })
            })),
            "policy.public-key",
        ),
    ]
}

/// Documents that name another module, or are no module's work.
fn document_lies() -> Vec<Case> {
    vec![
        (
            "a document of another module",
            image().module(Box::new(|module, request| {
                let is_description = matches!(request, Request::DescribeNSM);
                match module.answer(request) {
                    Response::DescribeNSM {
                        version_major,
                        version_minor,
                        version_patch,
                        max_pcrs,
                        locked_pcrs,
                        digest,
                        ..
                    } if is_description => Response::DescribeNSM {
                        version_major,
                        version_minor,
                        version_patch,
                        module_id: "i-11111111111111111-enc1".to_owned(),
                        max_pcrs,
                        locked_pcrs,
                        digest,
                    },
                    other => other,
                }
            })),
            "policy.module-id",
        ),
        (
            "a signature of zeros where the module signs",
            image().module(forges(|mut document| {
                let start = document.len() - 96;
                document[start..].fill(0);
                document
            })),
            "document.signature",
        ),
        (
            "rubbish",
            image().module(forges(|_| b"rubbish".to_vec())),
            "coseorcbor",
        ),
    ]
}

fn is_expected(rule: &str, expected: &str) -> bool {
    match expected {
        // Which of the two it is does not matter.
        "coseorcbor" => rule.starts_with("cose.") || rule.starts_with("cbor."),
        _ => rule == expected,
    }
}

#[tokio::test]
async fn self_check_that_passes_is_told_on_every_connection() {
    let (mut enclave, mut control) = image().boot().await;
    let first = told(&mut control).await;
    let (outcome, rule, detail, document) = &first;
    assert_eq!(
        (*outcome, rule.as_str(), detail.as_str()),
        (CheckOutcome::Passed, "", "")
    );
    // Anybody may verify it again.
    let roots = Roots::from_pem(enclave.prepared.root_pem.as_bytes()).unwrap();
    let policy = Policy::builder()
        .measurements(MEASUREMENTS)
        .purpose(Purpose::SelfCheck)
        .build()
        .unwrap();
    let verifier = Verifier::new(roots);
    let verification = verifier.verify(document, &policy, Nonce::Unchallenged);
    let accepted = verification.outcome.unwrap();
    assert_eq!(accepted.nonce().unwrap().len(), 32);
    // Nobody extends what nobody uses.
    assert!((0..32).all(|index| accepted.pcr(index).is_some()));
    message(&mut control, |message| match message {
        FromInit::Step { name, .. } if &**name == "self-check" => Some(()),
        _ => None,
    })
    .await;
    enclave
        .line(
            LogStream::System,
            "self-check: the enclave's own document was accepted",
        )
        .await;
    enclave.said("started").await;
    control.hang_up().await;
    let mut again = enclave.control().await;
    assert_eq!(told(&mut again).await, first);
}

#[tokio::test]
async fn self_check_draws_a_nonce_of_its_own_at_every_boot() {
    let mut nonces = Vec::new();
    for _ in 0..2 {
        let (_enclave, mut control) = image().boot().await;
        let (_, _, _, document) = told(&mut control).await;
        let document = attestation::Document::parse(&document).unwrap();
        nonces.push(document.unverified_nonce().unwrap().to_vec());
    }
    assert_ne!(nonces[0], nonces[1]);
}

#[tokio::test]
async fn self_check_required_ends_the_boot_before_the_workload_is_started() {
    for (name, image, expected) in every_lie() {
        let (mut enclave, mut control) = image.boot().await;
        let (outcome, rule, ..) = told(&mut control).await;
        assert_eq!(outcome, CheckOutcome::Failed, "{name}");
        assert!(is_expected(&rule, expected), "{name}: {rule}");
        let (cause, detail) = ending(&mut control).await;
        assert_eq!(cause, EndCause::BootFailed, "{name}");
        assert!(
            detail
                .starts_with("boot step self-check failed: the enclave's own document was refused"),
            "{name}: {detail}"
        );
        assert!(detail.contains(&rule), "{name}: {detail}");
        drop(control);
        let (code, console) = enclave.ended().await;
        assert_eq!(code, 1, "{name}");
        assert!(console.contains("boot step self-check failed"), "{console}");
        assert_eq!(enclave.lines(LogStream::Application), [""; 0], "{name}");
    }
}

#[tokio::test]
async fn self_check_report_tells_the_parent_and_goes_on() {
    for (name, image, expected) in every_lie() {
        let (enclave, mut control) = image.reports_self_check().boot().await;
        let (outcome, rule, detail, _) = told(&mut control).await;
        assert_eq!(outcome, CheckOutcome::Failed, "{name}");
        assert!(is_expected(&rule, expected), "{name}: {rule}");
        let line = enclave.line(LogStream::Errors, "self-check: ").await;
        assert!(
            line.contains(&rule) && line.contains(&detail),
            "{name}: {line}"
        );
        enclave.said("started").await;
    }
}

#[tokio::test]
async fn allow_debug_accepts_an_enclave_in_debug_mode() {
    let (enclave, mut control) = image().debug().boot().await;
    assert_eq!(told(&mut control).await.0, CheckOutcome::Passed);
    enclave.said("started").await;
}

#[tokio::test]
async fn self_check_without_a_document_ends_the_boot_whatever_the_image_says() {
    let image = image().reports_self_check().module(lies(|_, request| {
        is_attestation(request).then_some(Response::Error(ErrorCode::InternalError))
    }));
    let (enclave, mut control) = image.boot().await;
    let (cause, detail) = ending(&mut control).await;
    assert_eq!(cause, EndCause::BootFailed);
    assert!(
        detail.starts_with("boot step self-check failed"),
        "{detail}"
    );
    assert!(detail.contains("internal error"), "{detail}");
    assert_eq!(enclave.lines(LogStream::Application), [""; 0]);
}

#[tokio::test]
async fn self_check_with_a_policy_or_root_that_cannot_be_used_ends_the_boot() {
    let peer = json!([{"name": "oracle", "policy": "{}"}]);
    for (image, reason) in [
        (
            image().with("/attestation", json!({ "peers": peer })),
            "peer oracle: the policy names no code",
        ),
        (image().root("no certificate".to_owned()), "no PEM block"),
    ] {
        let (_enclave, mut control) = image.boot().await;
        let (cause, detail) = ending(&mut control).await;
        assert_eq!(cause, EndCause::BootFailed);
        assert!(
            detail.starts_with("boot step configuration failed"),
            "{detail}"
        );
        assert!(detail.contains(reason), "{detail}");
    }
}
