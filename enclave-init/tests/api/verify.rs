//! `POST /v1/verify`: other enclaves' documents.

use attestation::Policy;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use measurements::{Measurements, Pcr};
use nsm::{Request, Response};
use serde_json::{Value, json};
use software_nsm::{Identity, SoftwareNsm, TestRoot};

use crate::enclave::{Image, MEASUREMENTS};
use crate::local_api::answers_of;

const NONCE: [u8; 32] = [5; 32];

/// A document of another enclave of this root.
fn document(root: &TestRoot, measurements: Measurements, nonce: &[u8]) -> Vec<u8> {
    let root = TestRoot::from_pem(root.certificate_pem(), &root.key_pem()).unwrap();
    let identity = Identity {
        instance_id: "i-00000000000000000".to_owned(),
        enclave_id: "enc0000000000000001".to_owned(),
        measurements: Some(measurements),
    };
    let request = Request::Attestation {
        user_data: Some(b"about".to_vec().into()),
        nonce: Some(nonce.to_vec().into()),
        public_key: Some(b"key".to_vec().into()),
    };
    match SoftwareNsm::new(identity, root).unwrap().answer(request) {
        Response::Attestation { document } => document,
        other => panic!("{other:?}"),
    }
}

fn verify(document: &[u8], peer: &str, nonce: &[u8]) -> String {
    let body = json!({
        "document": STANDARD.encode(document),
        "peer": peer,
        "nonce": STANDARD.encode(nonce),
    });
    format!("request tcp POST /v1/verify {body}")
}

/// An image with a peer `oracle` that runs [`MEASUREMENTS`].
fn image(root: &TestRoot) -> Image {
    let policy = Policy::builder()
        .measurements(MEASUREMENTS)
        .build()
        .unwrap();
    Image::new(&[]).signed_by(root).attestation(
        "peers",
        json!([{"name": "oracle", "policy": policy.to_json().unwrap()}]),
    )
}

async fn verdicts(root: &TestRoot, requests: &[String]) -> Vec<(u16, Value)> {
    let (_enclave, answers) = answers_of(image(root), requests).await;
    answers
        .into_iter()
        .map(|(status, body)| (status, serde_json::from_slice(&body).unwrap()))
        .collect()
}

#[tokio::test]
async fn verify_accepts_a_document_under_the_peers_policy_with_what_it_says() {
    let root = TestRoot::generate().unwrap();
    let document = document(&root, MEASUREMENTS, &NONCE);
    let verdicts = verdicts(&root, &[verify(&document, "oracle", &NONCE)]).await;
    let (status, verdict) = &verdicts[0];
    assert_eq!((*status, &verdict["accepted"]), (200, &json!(true)));
    assert_eq!(verdict["public_key"], STANDARD.encode(b"key"));
    assert_eq!(verdict["user_data"], STANDARD.encode(b"about"));
    assert_eq!(verdict["purpose"], "workload");
    assert_eq!(verdict["pcrs"]["0"], MEASUREMENTS.pcr0.to_string());
    assert_eq!(
        verdict["module_id"],
        "i-00000000000000000-enc0000000000000001"
    );
    assert!(verdict["timestamp_ms"].as_u64().unwrap() > 1_700_000_000_000);
}

#[tokio::test]
async fn verify_refuses_what_breaks_a_rule_by_its_name() {
    let root = TestRoot::generate().unwrap();
    let other = Measurements {
        pcr0: Pcr::new([9; 48]),
        ..MEASUREMENTS
    };
    let mut forged = document(&root, MEASUREMENTS, &NONCE);
    *forged.last_mut().unwrap() ^= 1;
    let cases = [
        (document(&root, other, &NONCE), "policy.image"),
        (document(&root, MEASUREMENTS, &[6; 32]), "policy.nonce"),
        (
            document(&TestRoot::generate().unwrap(), MEASUREMENTS, &NONCE),
            "chain.root",
        ),
        (forged, "document.signature"),
        (Vec::new(), "cbor.encoding"),
    ];
    let requests: Vec<_> = cases
        .iter()
        .map(|(document, _)| verify(document, "oracle", &NONCE))
        .collect();
    let verdicts = verdicts(&root, &requests).await;
    assert_eq!(verdicts.len(), cases.len());
    for ((_, rule), (status, verdict)) in cases.iter().zip(verdicts) {
        assert_eq!(
            (status, &verdict["accepted"]),
            (200, &json!(false)),
            "{verdict}"
        );
        assert_eq!(verdict["rule"], *rule, "{verdict}");
        assert!(
            verdict["reason"]
                .as_str()
                .is_some_and(|reason| !reason.is_empty())
        );
        assert_eq!(verdict.get("public_key"), None);
    }
}

#[tokio::test]
async fn verify_answers_requests_that_make_no_sense_with_the_reason() {
    let root = TestRoot::generate().unwrap();
    let document = document(&root, MEASUREMENTS, &NONCE);
    let body = |body: Value| format!("request tcp POST /v1/verify {body}");
    let cases = [
        (
            verify(&document, "nobody", &NONCE),
            404,
            "names oracle; add it",
        ),
        (verify(&document, "oracle", &[]), 400, "the nonce is empty"),
        (
            verify(&document, "oracle", &[0; 1025]),
            400,
            "nonce has more than 1024",
        ),
        (
            verify(&vec![0; 16_641], "oracle", &NONCE),
            400,
            "document has more than 16640",
        ),
        (
            verify(&vec![0; 30_000], "oracle", &NONCE),
            413,
            "the body has more than",
        ),
        (
            body(json!({"peer": "oracle", "document": ""})),
            400,
            "missing field `nonce`",
        ),
        (
            body(json!({"peer": "oracle", "document": "?", "nonce": "AA=="})),
            400,
            "document is not base64",
        ),
        (
            body(json!({"peer": "oracle", "document": "", "nonce": "AA==", "root": "x"})),
            400,
            "unknown field `root`",
        ),
    ];
    let requests: Vec<_> = cases.iter().map(|(request, ..)| request.clone()).collect();
    let verdicts = verdicts(&root, &requests).await;
    assert_eq!(verdicts.len(), cases.len());
    for ((_, expected, text), (status, verdict)) in cases.iter().zip(verdicts) {
        assert_eq!(status, *expected, "{verdict}");
        let error = verdict["error"].as_str().unwrap();
        assert!(error.contains(text), "{error}");
    }
}

#[tokio::test]
async fn verify_answers_many_at_once() {
    let root = TestRoot::generate().unwrap();
    let document = document(&root, MEASUREMENTS, &NONCE);
    let request = verify(&document, "oracle", &NONCE);
    let request = request.replace("request tcp POST", "together 40");
    let verdicts = verdicts(&root, &[request]).await;
    assert_eq!(verdicts.len(), 40);
    for (status, verdict) in verdicts {
        assert_eq!((status, &verdict["accepted"]), (200, &json!(true)));
    }
}
