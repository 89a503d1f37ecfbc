//! The HTTP API for the workload.

use attestation::{Nonce, Policy, Purpose, Roots, Verifier};
use aws_lc_rs::signature::{ECDSA_P384_SHA384_ASN1, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::description::Description;
use crate::enclave::{Enclave, Image, MEASUREMENTS};

/// The answers to requests, as status and body.
async fn answers(requests: &[String]) -> (Enclave, Vec<(u16, Vec<u8>)>) {
    answers_of(Image::new(&[]), requests).await
}

/// The same of an enclave of this image, whose workload does nothing else.
pub(crate) async fn answers_of(
    image: Image,
    requests: &[String],
) -> (Enclave, Vec<(u16, Vec<u8>)>) {
    let mut instructions = vec!["/bin/workload"];
    instructions.extend(requests.iter().map(String::as_str));
    instructions.extend(["say done", "wait"]);
    let image = image.with("/workload/command", instructions.into());
    let (enclave, _control) = image.boot().await;
    enclave.said("done").await;
    let answers = enclave.answers();
    // Whatever a test asks for, it is answered as it is described.
    let description = Description::read();
    for (request, (status, body)) in requests.iter().zip(&answers) {
        if let ["request", _, method, target, ..] = *request.split(' ').collect::<Vec<_>>() {
            description.check(method, target, *status, body);
        }
    }
    (enclave, answers)
}

#[tokio::test]
async fn local_api_gives_documents_over_both_transports() {
    let body = json!({
        "nonce": STANDARD.encode([9; 32]),
        "user_data": STANDARD.encode([8; 512]),
        "public_key": STANDARD.encode([7; 1024]),
    });
    let requests =
        ["tcp", "unix"].map(|transport| format!("request {transport} POST /v1/attestation {body}"));
    let (enclave, answers) = answers(&requests).await;
    let roots = Roots::from_pem(enclave.prepared.root_pem.as_bytes()).unwrap();
    let verifier = Verifier::new(roots);
    assert_eq!(answers.len(), 2);
    for (status, document) in answers {
        assert_eq!(status, 200);
        let policy = Policy::builder()
            .measurements(MEASUREMENTS)
            .user_data(vec![8; 512])
            .public_key(vec![7; 1024])
            .build()
            .unwrap();
        verifier
            .verify(&document, &policy, Nonce::Fresh(&[9; 32]))
            .outcome
            .unwrap();
    }
}

#[tokio::test]
async fn local_api_documents_cannot_look_like_the_inits() {
    let attestation = |user_data: &[u8]| {
        let body = json!({ "user_data": STANDARD.encode(user_data) });
        format!("request tcp POST /v1/attestation {body}")
    };
    let reserved = [
        b"enclave-purpose:".as_slice(),
        b"enclave-purpose:relayed-challenge",
        b"enclave-purpose:self-check",
        b"enclave-purpose:sealing",
        b"enclave-purpose:self-check\0",
        b"enclave-purpose:workload",
        b"enclave-purpose:anything else",
        &[b"enclave-purpose:".as_slice(), &[0; 496]].concat(),
    ];
    let free = [
        b"".as_slice(),
        b"enclave-purpose",
        b"Enclave-purpose:self-check",
        b" enclave-purpose:self-check",
        b"self-check",
    ];
    let requests: Vec<_> = reserved
        .iter()
        .chain(&free)
        .map(|data| attestation(data))
        .collect();
    let (enclave, answers) = answers(&requests).await;
    let roots = Roots::from_pem(enclave.prepared.root_pem.as_bytes()).unwrap();
    let verifier = Verifier::new(roots);
    let (refused, given) = answers.split_at(reserved.len());
    for (status, body) in refused {
        let body: Value = serde_json::from_slice(body).unwrap();
        assert_eq!(*status, 400, "{body}");
        let error = body["error"].as_str().unwrap();
        assert!(error.contains("begins with `enclave-purpose:`"), "{error}");
    }
    assert_eq!(given.len(), free.len());
    for ((status, document), data) in given.iter().zip(free) {
        assert_eq!(*status, 200);
        for purpose in Purpose::KNOWN {
            let policy = Policy::builder()
                .measurements(MEASUREMENTS)
                .purpose(purpose)
                .build()
                .unwrap();
            let verification = verifier.verify(document, &policy, Nonce::Unchallenged);
            let outcome = verification.outcome;
            assert_eq!(outcome.is_ok(), purpose == Purpose::Workload, "{data:?}");
        }
    }
}

#[tokio::test]
async fn local_api_takes_an_identity_key_once() {
    let put = |key: &[u8]| {
        let body = json!({ "public_key": STANDARD.encode(key) });
        format!("request unix PUT /v1/identity {body}")
    };
    let get = "request tcp GET /v1/identity".to_owned();
    let requests = [
        get.clone(),
        put(b""),
        put(&[7; 1025]),
        "request tcp PUT /v1/identity".to_owned(),
        "request tcp PUT /v1/identity {\"public_key\":\"?\"}".to_owned(),
        put(b"key"),
        put(b"key"),
        put(b"another"),
        get,
    ];
    let (_enclave, answers) = answers(&requests).await;
    let expected = [
        (404, "no identity key has been registered"),
        (400, "public_key is empty"),
        (400, "public_key has more than 1024 bytes"),
        (400, "missing field `public_key`"),
        (400, "public_key is not base64"),
        (204, ""),
        (204, ""),
        (409, "another one already"),
        (200, "{\"public_key\":\"a2V5\"}"),
    ];
    assert_eq!(answers.len(), expected.len());
    for ((status, body), (code, part)) in answers.iter().zip(expected) {
        let body = String::from_utf8_lossy(body);
        assert_eq!(*status, code, "{body}");
        assert!(body.contains(part), "{body}");
    }
}

#[tokio::test]
async fn local_api_signs_with_an_identity_key_that_the_init_has_made() {
    let sign = |message: &[u8]| {
        let body = json!({ "message": STANDARD.encode(message) });
        format!("request unix POST /v1/sign {body}")
    };
    let requests = [
        sign(b"too early"),
        "request tcp POST /v1/identity ".to_owned(),
        "request tcp POST /v1/identity ".to_owned(),
        sign(b"a message"),
        sign(&vec![7; 32 * 1024]),
        sign(&vec![7; 48 * 1024]),
        "request tcp POST /v1/sign {\"message\":\"?\"}".to_owned(),
        "request tcp POST /v1/sign {}".to_owned(),
        "request tcp PUT /v1/identity {\"public_key\":\"AA==\"}".to_owned(),
        "request tcp GET /v1/identity".to_owned(),
    ];
    let (_enclave, answers) = answers(&requests).await;
    let statuses: Vec<_> = answers.iter().map(|(status, _)| *status).collect();
    assert_eq!(statuses, [409, 200, 200, 200, 200, 413, 400, 400, 409, 200]);
    let value = |index: usize| -> Value { serde_json::from_slice(&answers[index].1).unwrap() };
    let bytes = |value: &Value| STANDARD.decode(value.as_str().unwrap()).unwrap();
    assert_eq!((value(2), value(9)), (value(1), value(1)));
    // P-384, as verifiers recognise it.
    let key = bytes(&value(1)["public_key"]);
    assert!(key.starts_with(&[0x30, 0x76]), "{key:?}");
    assert_eq!(value(3)["algorithm"], "ecdsa-with-SHA384");
    let signature = bytes(&value(3)["signature"]);
    let verifier = UnparsedPublicKey::new(&ECDSA_P384_SHA384_ASN1, &key);
    assert!(verifier.verify(b"a message", &signature).is_ok());
    assert!(verifier.verify(b"another", &signature).is_err());
}

#[tokio::test]
async fn local_api_takes_an_empty_body_for_a_document_about_nothing() {
    let (_enclave, answers) = answers(&["request tcp POST /v1/attestation ".to_owned()]).await;
    assert_eq!(answers[0].0, 200);
}

#[tokio::test]
async fn local_api_gives_as_many_random_bytes_as_asked_for() {
    let request = |count: u32| format!("request unix GET /v1/random?bytes={count}");
    let (_enclave, answers) = answers(&[1, 257, 4096, 4096].map(request)).await;
    let lengths: Vec<_> = answers
        .iter()
        .map(|(status, bytes)| (*status, bytes.len()))
        .collect();
    assert_eq!(lengths, [(200, 1), (200, 257), (200, 4096), (200, 4096)]);
    assert_ne!(answers[2], answers[3]);
}

/// Each operation of the description is there; how it is answered is compared for every request.
#[tokio::test]
async fn local_api_answers_as_it_is_described() {
    let description = Description::read();
    let requests: Vec<_> = description
        .operations()
        .map(|(path, method, operation)| {
            let path = path
                .replace("{index}", "17")
                .replace("{purpose}", "test")
                .replace("{name}", "none");
            let query = if path == "/v1/random" { "?bytes=8" } else { "" };
            let body = &operation["requestBody"]["content"]["application/json"]["example"];
            let body = if body.is_null() {
                String::new()
            } else {
                body.to_string()
            };
            format!("request tcp {method} {path}{query} {body}")
        })
        .collect();
    let (_enclave, answers) = answers(&requests).await;
    assert_eq!(answers.len(), requests.len());
    for (request, (_, body)) in requests.iter().zip(answers) {
        let body = String::from_utf8_lossy(&body);
        assert!(!body.contains("unknown-resource"), "{request}");
    }
}

/// What can be refused here is refused with the code that programs know it by. What takes a
/// KMS, secrets or a hostile module is in the tests of these, by the same comparison.
#[tokio::test]
async fn local_api_refusals_have_codes() {
    let post = |path: &str, body: Value| format!("request unix POST {path} {body}");
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
            post("/v1/attestation", json!({"nonce": "A".repeat(9000)})),
            413,
            "body-too-large",
        ),
        (post("/v1/attestation", reserved), 400, "reserved-user-data"),
        (
            "request tcp GET /v1/identity".to_owned(),
            404,
            "identity-unset",
        ),
        (
            post("/v1/sign", json!({"message": ""})),
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
            post("/v1/sign", json!({"message": ""})),
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
        (post("/v1/verify", verify), 404, "unknown-peer"),
        (
            post("/v1/readiness", json!({"state": "ready"})),
            409,
            "notify-off",
        ),
        (post("/v1/kms/random", json!({"bytes": 1})), 404, "no-kms"),
    ];
    let requests: Vec<_> = cases.iter().map(|(request, ..)| request.clone()).collect();
    let image = Image::new(&[]).attestation("open_registers", json!([17]));
    let (_enclave, answers) = answers_of(image, &requests).await;
    assert_eq!(answers.len(), cases.len());
    for ((request, expected, code), (status, body)) in cases.iter().zip(answers) {
        assert_eq!(status, *expected, "{request}");
        if !code.is_empty() {
            let body: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(body["code"], *code, "{request}: {body}");
            let said = |name: &str| body[name].as_str().is_some_and(|text| !text.is_empty());
            assert!(said("error") && said("advice"), "{request}: {body}");
        }
    }
}

#[tokio::test]
async fn local_api_answers_wrong_requests_with_a_reason() {
    let attestation = |body: Value| format!("request tcp POST /v1/attestation {body}");
    let cases = [
        (
            "request tcp GET /v1/attestation".to_owned(),
            404,
            "POST /v1/attestation",
        ),
        (
            "request tcp GET /v1/random".to_owned(),
            400,
            "from 1 to 4096",
        ),
        (
            "request tcp GET /v1/random?bytes=4097".to_owned(),
            400,
            "from 1 to 4096",
        ),
        (
            attestation(json!({"nonce": "?"})),
            400,
            "nonce is not base64",
        ),
        (
            attestation(json!({"nonce": STANDARD.encode([0; 513])})),
            400,
            "nonce has more than 512 bytes",
        ),
        (
            attestation(json!({"public_key": STANDARD.encode([0; 1025])})),
            400,
            "public_key has more than 1024 bytes",
        ),
        (attestation(json!({"other": 1})), 400, "unknown field"),
        (
            attestation(json!({"nonce": "A".repeat(9000)})),
            413,
            "more than 8192 bytes",
        ),
    ];
    let requests: Vec<_> = cases.iter().map(|(request, ..)| request.clone()).collect();
    let (_enclave, answers) = answers(&requests).await;
    assert_eq!(answers.len(), cases.len());
    for ((request, expected, text), (status, body)) in cases.iter().zip(answers) {
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(status, *expected, "{request}: {body}");
        let error = body["error"].as_str().unwrap();
        assert!(error.contains(text), "{request}: {error}");
    }
}

#[tokio::test]
async fn local_api_refuses_callers_that_do_not_know_it() {
    let path = "/v1/random?bytes=1";
    let absolute = |host: &str| format!("http://{host}{path}");
    let mark = "Enclave-Api:1";
    let host = "Host:198.18.0.1:7070";
    let cases = [
        (format!("forge tcp {path} {host} {mark}"), 200, ""),
        (format!("forge unix {path} Host:x {mark}"), 200, ""),
        (format!("forge unix {path} {mark}"), 200, ""),
        (
            format!("forge tcp {} {host} {mark}", absolute("198.18.0.1:7070")),
            200,
            "",
        ),
        (
            format!("forge tcp {} {host} {mark}", absolute("a.test:7070")),
            403,
            "send `Host: 198.18.0.1:7070`",
        ),
        (
            format!("forge tcp {path} {host}"),
            403,
            "send the header `Enclave-Api: 1`",
        ),
        (
            format!("forge unix {path} Host:x"),
            403,
            "send the header `Enclave-Api: 1`",
        ),
        (
            format!("forge tcp {path} Host:rebound.test:7070 {mark}"),
            403,
            "send `Host: 198.18.0.1:7070`",
        ),
        // What programs were told before the workload had a network of its own.
        (
            format!("forge tcp {path} Host:localhost:7070 {mark}"),
            403,
            "send `Host: 198.18.0.1:7070`",
        ),
        (
            format!("forge tcp {path} {host} {host} {mark}"),
            403,
            "send `Host: 198.18.0.1:7070`",
        ),
        (
            format!("forge tcp {path} {host} {mark} X-Forwarded-For:192.0.2.1"),
            403,
            "`x-forwarded-for`",
        ),
        (
            format!("forge unix {path} {mark} Origin:http://a.test"),
            403,
            "`origin`",
        ),
    ];
    let requests: Vec<_> = cases.iter().map(|(request, ..)| request.clone()).collect();
    let (_enclave, answers) = answers(&requests).await;
    assert_eq!(answers.len(), cases.len());
    for ((request, expected, text), (status, body)) in cases.iter().zip(answers) {
        let body = String::from_utf8_lossy(&body);
        assert_eq!(status, *expected, "{request}: {body}");
        assert!(body.contains(text), "{request}: {body}");
    }
}

#[tokio::test]
async fn local_api_has_the_measurements_that_documents_show() {
    let request = ["request tcp GET /v1/measurements".to_owned()];
    let image = Image::new(&[]).attestation("open_registers", json!([17]));
    let (enclave, answers) = answers_of(image, &request).await;
    let said: Value = serde_json::from_slice(&answers[0].1).unwrap();
    assert_eq!(said["name"], "test");
    assert_eq!(said["module_id"], "i-00000000000000000-enc0123456789abcdef");
    assert_eq!(
        (&said["self_check"], &said["debug"]),
        (&json!("passed"), &json!(false))
    );
    assert_eq!(said["pcrs"]["0"], MEASUREMENTS.pcr0.to_string());
    assert!(said["pcrs"]["17"].is_null(), "{said}");
    // The document that the agent was given is the one that was verified.
    let policy = |pcrs: &Value| {
        let pcrs = pcrs.as_object().unwrap().iter();
        let policy = Policy::builder()
            .allow_any_image()
            .purpose(Purpose::Workload);
        pcrs.fold(policy, |policy, (index, value)| {
            let value = value.as_str().unwrap().parse().unwrap();
            policy.pcr(index.parse().unwrap(), value)
        })
        .build()
        .unwrap()
    };
    let path = enclave.folder().join("nsm");
    let document = tokio::task::spawn_blocking(move || {
        let mut nsm = nsm::Nsm::socket(&path).unwrap();
        nsm.attestation(None, None, None).unwrap()
    });
    let document = document.await.unwrap();
    let roots = Roots::from_pem(enclave.prepared.root_pem.as_bytes()).unwrap();
    let verification =
        Verifier::new(roots).verify(&document, &policy(&said["pcrs"]), Nonce::Unchallenged);
    verification.outcome.unwrap();
}

#[tokio::test]
async fn local_api_says_when_measurements_were_not_verified() {
    let request = ["request tcp GET /v1/measurements".to_owned()];
    let root = software_nsm::TestRoot::generate().unwrap();
    let image = Image::new(&[])
        .root(root.certificate_pem().to_owned())
        .reports_self_check()
        .debug();
    let (_enclave, answers) = answers_of(image, &request).await;
    let said: Value = serde_json::from_slice(&answers[0].1).unwrap();
    assert_eq!(
        (&said["self_check"], &said["debug"]),
        (&json!("failed"), &json!(true))
    );
    let detail = said["detail"].as_str().unwrap();
    assert!(detail.contains("chain.root"), "{detail}");
}

#[tokio::test]
async fn local_api_has_the_runtime_configuration_that_pcr16_measures() {
    let given = b"{\"tenant\": 7}\n\xff\0".to_vec();
    let requests = [
        "request unix GET /v1/runtime-configuration".to_owned(),
        "request tcp GET /v1/measurements".to_owned(),
    ];
    let image = Image::new(&[]).agent(|behaviour| behaviour.runtime_config = given.clone());
    let (_enclave, answers) = answers_of(image, &requests).await;
    assert_eq!(answers[0], (200, given.clone()));
    let digest = |bytes: &[u8]| aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA384, bytes);
    let extended = digest(&[&[0; 48][..], digest(&given).as_ref()].concat());
    let said: Value = serde_json::from_slice(&answers[1].1).unwrap();
    assert_eq!(said["pcrs"]["16"], hex::encode(extended));
}

#[tokio::test]
async fn local_api_stays_open_with_connections_that_say_nothing() {
    let (_enclave, answers) = answers(&["half 64".to_owned()]).await;
    assert_eq!(answers[0].0, 200);
}
