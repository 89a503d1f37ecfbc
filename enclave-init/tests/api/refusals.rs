//! Refusals of the local API, by the codes that programs know them by.

use std::fs;

use attestation::Policy;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nsm::{ErrorCode, Request, Response};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::description::Description;
use crate::enclave::{Enclave, Image, LIMIT, MEASUREMENTS};
use crate::local_api::answers_of;
use crate::malformed::{connect, request, rest, statuses};

/// Connections that are served at a time.
const PLACES: usize = 64;

fn post(path: &str, body: &Value) -> String {
    format!("request unix POST {path} {body}")
}

/// Compares the answers to requests with what is expected: a status and a code, or none.
async fn refusals(image: Image, cases: &[(String, u16, &str)]) {
    let requests: Vec<_> = cases.iter().map(|(request, ..)| request.clone()).collect();
    let (_enclave, answers) = answers_of(image, &requests).await;
    assert_eq!(answers.len(), cases.len());
    for ((request, expected, code), (status, body)) in cases.iter().zip(answers) {
        let text = String::from_utf8_lossy(&body);
        assert_eq!(status, *expected, "{request}: {text}");
        if !code.is_empty() {
            let body: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(body["code"], *code, "{request}: {body}");
            let said = |name: &str| body[name].as_str().is_some_and(|text| !text.is_empty());
            assert!(said("error") && said("advice"), "{request}: {body}");
        }
    }
}

/// What can be refused here is refused with the code that programs know it by. What takes a
/// KMS, secrets or a hostile module is in the tests of these, by the same comparison.
#[tokio::test]
async fn local_api_refusals_have_codes() {
    let reserved = json!({"user_data": STANDARD.encode("enclave-purpose:clock")});
    let verify = json!({"peer": "nobody", "document": "AA==", "nonce": "AA=="});
    let cases = [
        ("request tcp GET /v2".to_owned(), 404, "unknown-resource"),
        (
            "forge tcp /v1/time Host:x".to_owned(),
            403,
            "caller-refused",
        ),
        (
            "request tcp GET /v1/random?bytes=0".to_owned(),
            400,
            "invalid-request",
        ),
        (
            post("/v1/attestation", &json!({"nonce": "A".repeat(9000)})),
            413,
            "body-too-large",
        ),
        (
            post("/v1/attestation", &reserved),
            400,
            "reserved-user-data",
        ),
        (
            "request tcp GET /v1/identity".to_owned(),
            404,
            "identity-unset",
        ),
        (
            post("/v1/sign", &json!({"message": ""})),
            409,
            "identity-not-made",
        ),
        (
            "request tcp PUT /v1/identity {\"public_key\":\"AA==\"}".to_owned(),
            204,
            "",
        ),
        (
            "request tcp PUT /v1/identity {\"public_key\":\"AQ==\"}".to_owned(),
            409,
            "identity-taken",
        ),
        (
            "request tcp POST /v1/identity ".to_owned(),
            409,
            "identity-taken",
        ),
        (
            post("/v1/sign", &json!({"message": ""})),
            409,
            "identity-taken",
        ),
        ("request tcp GET /v1/keys".to_owned(), 404, "no-family"),
        (
            "request tcp GET /v1/secrets/none".to_owned(),
            404,
            "unknown-secret",
        ),
        (
            "request tcp POST /v1/registers/32/lock ".to_owned(),
            404,
            "unknown-register",
        ),
        (
            "request tcp POST /v1/registers/16/lock ".to_owned(),
            403,
            "register-closed",
        ),
        (
            "request tcp POST /v1/registers/17/lock ".to_owned(),
            200,
            "",
        ),
        (
            "request tcp POST /v1/registers/17/lock ".to_owned(),
            409,
            "register-locked",
        ),
        (post("/v1/verify", &verify), 404, "unknown-peer"),
        (
            post("/v1/readiness", &json!({"state": "ready"})),
            409,
            "notify-off",
        ),
        (post("/v1/kms/random", &json!({"bytes": 1})), 404, "no-kms"),
    ];
    let image = Image::new(&[]).attestation("open_registers", json!([17]));
    refusals(image, &cases).await;
}

/// What the module refuses is told from what it fails at, for which no request is to blame.
#[tokio::test]
async fn local_api_says_whether_the_module_refuses_or_fails() {
    let attest = |nonce: &str| post("/v1/attestation", &json!({"nonce": STANDARD.encode(nonce)}));
    let get = |path: &str| format!("request tcp GET {path}");
    let extend = |register: u16| {
        let path = format!("/v1/registers/{register}/extend");
        post(&path, &json!({"data": "AA=="}))
    };
    let cases = [
        (attest("anything"), 200, ""),
        (attest("InvalidArgument"), 400, "module-refused"),
        (attest("InvalidOperation"), 400, "module-refused"),
        (attest("InputTooLarge"), 400, "module-refused"),
        (attest("InternalError"), 502, "module-failed"),
        (attest("InvalidResponse"), 502, "module-failed"),
        (attest("BufferTooSmall"), 502, "module-failed"),
        (attest("Success"), 502, "module-failed"),
        (attest("another answer"), 502, "module-failed"),
        (extend(17), 400, "module-refused"),
        (extend(18), 502, "module-failed"),
        (
            "request tcp POST /v1/registers/18/lock ".to_owned(),
            400,
            "module-refused",
        ),
        (get("/v1/registers"), 200, ""),
        (get("/v1/random?bytes=8"), 200, ""),
        (attest("from now on"), 502, "module-failed"),
        (get("/v1/registers"), 502, "module-failed"),
        (get("/v1/random?bytes=8"), 502, "module-failed"),
    ];
    let mut has_failed = false;
    let image = Image::new(&[])
        .attestation("open_registers", json!([17, 18]))
        .module(Box::new(move |module, request| {
            let nonce = match &request {
                Request::Attestation { nonce, .. } => nonce.as_ref().map(|nonce| &nonce[..]),
                _ => None,
            };
            has_failed |= nonce == Some(b"from now on");
            if has_failed {
                return Response::Error(ErrorCode::InternalError);
            }
            Response::Error(match (&request, nonce) {
                (_, Some(b"InvalidArgument")) => ErrorCode::InvalidArgument,
                (_, Some(b"InvalidOperation")) | (Request::ExtendPCR { index: 17, .. }, _) => {
                    ErrorCode::InvalidOperation
                }
                (_, Some(b"InputTooLarge")) => ErrorCode::InputTooLarge,
                (_, Some(b"InternalError")) | (Request::ExtendPCR { index: 18, .. }, _) => {
                    ErrorCode::InternalError
                }
                (_, Some(b"InvalidResponse")) => ErrorCode::InvalidResponse,
                (_, Some(b"BufferTooSmall")) => ErrorCode::BufferTooSmall,
                (_, Some(b"Success")) => ErrorCode::Success,
                (_, Some(b"another answer")) => return Response::LockPCR,
                (Request::LockPCR { index: 18 }, _) => ErrorCode::InvalidIndex,
                _ => return module.answer(request),
            })
        }));
    refusals(image, &cases).await;
}

/// Whose clock no document of the module's has ever told the time.
#[tokio::test]
async fn local_api_verifies_nothing_without_a_time() {
    let policy = Policy::builder().measurements(MEASUREMENTS);
    let policy = policy.build().unwrap().to_json().unwrap();
    let image = Image::new(&[])
        .attestation("peers", json!([{"name": "oracle", "policy": policy}]))
        .module(Box::new(|module, request| match &request {
            Request::Attestation {
                user_data: Some(data),
                ..
            } if data[..] == *b"enclave-purpose:clock" => Response::Error(ErrorCode::InternalError),
            _ => module.answer(request),
        }));
    let verify = json!({"peer": "oracle", "document": "AA==", "nonce": "AA=="});
    let cases = [
        ("request tcp GET /v1/time".to_owned(), 200, ""),
        (post("/v1/verify", &verify), 503, "no-time"),
    ];
    refusals(image, &cases).await;
}

/// An enclave whose workload ends when it is told to, and is started again.
async fn that_is_started_again() -> Enclave {
    let instructions = [
        "say here",
        "first until /go",
        "first exit 3",
        "say again",
        "wait",
    ];
    let image = Image::new(&instructions)
        .with("/workload/health", json!({"notify": true}))
        .restarted(5);
    let (enclave, _control) = image.boot().await;
    enclave.said("here").await;
    enclave
}

async fn start_again(enclave: &Enclave) {
    fs::write(enclave.path("go"), "").unwrap();
    enclave.said("again").await;
}

/// A request that is served, and waits for its body.
async fn served(enclave: &Enclave, length: usize) -> UnixStream {
    let mut stream = connect(enclave).await;
    let length = format!("Content-Length: {length}");
    let headers = [&*length, "Expect: 100-continue"];
    let head = request("POST /v1/readiness HTTP/1.1", &headers, "");
    stream.write_all(&head).await.unwrap();
    let mut go_on = [0; 25];
    let reading = stream.read_exact(&mut go_on);
    timeout(LIMIT, reading).await.unwrap().unwrap();
    assert_eq!(go_on, *b"HTTP/1.1 100 Continue\r\n\r\n");
    stream
}

async fn readiness(enclave: &Enclave) -> Value {
    let mut stream = connect(enclave).await;
    let get = request("GET /v1/readiness HTTP/1.1", &[], "");
    stream.write_all(&get).await.unwrap();
    let answer = rest(&mut stream).await;
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

#[tokio::test]
async fn local_api_hears_nothing_of_an_earlier_run_that_is_sent_late() {
    let enclave = that_is_started_again().await;
    let body = r#"{"state":"ready"}"#;
    let mut stream = served(&enclave, body.len()).await;
    start_again(&enclave).await;
    stream.write_all(body.as_bytes()).await.unwrap();
    let answer = rest(&mut stream).await;
    assert_eq!(statuses(&answer), [409], "{answer}");
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    Description::read().check("POST", "/v1/readiness", 409, body.as_bytes());
    let body: Value = serde_json::from_str(body).unwrap();
    assert_eq!(body["code"], "earlier-run");
    assert_eq!(readiness(&enclave).await["state"], "starting");
}

/// What was sent in time, but waits while all places are taken.
#[tokio::test]
async fn local_api_hears_nothing_of_an_earlier_run_that_was_kept_waiting() {
    let enclave = that_is_started_again().await;
    let mut others = Vec::new();
    for _ in 0..PLACES {
        others.push(served(&enclave, 99).await);
    }
    let body = r#"{"state":"ready"}"#;
    let length = format!("Content-Length: {}", body.len());
    let mut waiting = connect(&enclave).await;
    let ready = request("POST /v1/readiness HTTP/1.1", &[&length], body);
    waiting.write_all(&ready).await.unwrap();
    start_again(&enclave).await;
    drop(others);
    let answer = rest(&mut waiting).await;
    assert_eq!(answer, "", "it is closed without an answer");
    let found = readiness(&enclave).await;
    assert_eq!(
        (&found["state"], &found["restarts"]),
        (&json!("starting"), &json!(1))
    );
}
