//! The relay of challenges, the local API, and the software NSM behind `sim`.

use attestation::{Nonce, Policy, Roots, Verifier};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use link::control::{FromAgent, FromInit};
use link::{Bytes, Text};
use nsm::Nsm;
use serde_json::Value;

use crate::agent::{Agent, Init, command, output};

/// A challenge as the local API takes it.
const NONCE: &str = "{\"nonce\":\"bm9uY2U=\"}";

fn error(body: &[u8]) -> String {
    let body: Value = serde_json::from_slice(body).unwrap();
    body["error"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn attest_relays_documents_untouched() {
    let mut agent = Agent::start(&[]).await;
    let mut init = agent.boot().await;
    let mut attest = command(agent.folder.path(), "attest");
    attest.args(["--nonce", "00ff"]);
    let asked = tokio::spawn(output(attest));
    let Some(FromAgent::Challenge { id, nonce }) = init.receive().await else {
        panic!("no challenge");
    };
    assert_eq!(&*nonce, [0x00, 0xff]);
    let document: Vec<u8> = (0..=255).cycle().take(12 * 1024).collect();
    // An answer to another challenge is not taken for this one's.
    for (id, bytes) in [(id + 1, vec![1]), (id, document.clone())] {
        let document = Bytes::new(bytes).unwrap();
        init.send(FromInit::Document { id, document }).await;
    }
    let answer = asked.await.unwrap();
    assert!(answer.status.success(), "{answer:?}");
    assert_eq!(answer.stdout, document);
}

/// Whoever relays a challenge has no say in what else the document holds.
#[tokio::test]
async fn attest_takes_a_nonce_and_nothing_else() {
    let mut agent = Agent::start(&[]).await;
    let mut init = agent.boot().await;
    for (arguments, part) in [
        (&[][..], "--nonce <HEX>"),
        (&["--nonce", "00", "--user-data", "ab"], "'--user-data'"),
        (&["--nonce", "00", "--public-key", "key"], "'--public-key'"),
        (&["--nonce", "0"], "hexadecimal"),
    ] {
        let mut attest = command(agent.folder.path(), "attest");
        attest.args(arguments);
        let refused = output(attest).await;
        assert_eq!(refused.status.code(), Some(2), "{arguments:?}");
        let error = String::from_utf8(refused.stderr).unwrap();
        assert!(error.contains(part), "{error}");
    }
    for (nonce, part) in [("", "has 0 bytes"), (&"00".repeat(513), "has 513 bytes")] {
        let mut attest = command(agent.folder.path(), "attest");
        attest.args(["--nonce", nonce]);
        let refused = output(attest).await;
        assert_eq!(refused.status.code(), Some(1));
        assert!(crate::agent::error_line(&refused).contains(part));
    }
    for (body, part) in [
        ("", "missing field `nonce`"),
        ("{\"nonce\":null}", "expected a string"),
        ("{\"nonce\":\"\"}", "has 0 bytes: give 1 to 512"),
        (
            "{\"nonce\":\"AA==\",\"user_data\":\"AA==\"}",
            "unknown field `user_data`",
        ),
        (
            "{\"nonce\":\"AA==\",\"public_key\":\"AA==\"}",
            "unknown field `public_key`",
        ),
    ] {
        let (status, answer) = agent.request("POST", "/v1/attest", body).await;
        assert_eq!(status, 400, "{body}");
        let error = error(&answer);
        assert!(error.contains(part), "{error}");
    }
    // None of them has reached the enclave: the next challenge is its first.
    let asked = agent.request("POST", "/v1/attest", NONCE);
    let answered = async {
        let Some(FromAgent::Challenge { id, nonce }) = init.receive().await else {
            panic!("no challenge");
        };
        assert_eq!(&*nonce, b"nonce");
        let document = Bytes::new(*b"document").unwrap();
        init.send(FromInit::Document { id, document }).await;
    };
    let ((code, body), ()) = tokio::join!(asked, answered);
    assert_eq!((code, body.as_slice()), (200, b"document".as_slice()));
}

#[tokio::test]
async fn attest_says_why_a_challenge_is_refused() {
    let mut agent = Agent::start(&[]).await;
    let (code, body) = agent.request("POST", "/v1/attest", NONCE).await;
    assert_eq!(
        (code, error(&body)),
        (
            503,
            "the enclave is booting: try again once it is ready".to_owned()
        )
    );

    let mut init = agent.boot().await;
    let asked = agent.request("POST", "/v1/attest", NONCE);
    let answered = async {
        let Some(FromAgent::Challenge { id, .. }) = init.receive().await else {
            panic!("no challenge");
        };
        let reason = Text::new("InputTooLarge");
        init.send(FromInit::ChallengeFailed { id, reason }).await;
    };
    let ((code, body), ()) = tokio::join!(asked, answered);
    assert_eq!(code, 502);
    assert!(error(&body).contains("InputTooLarge"));

    // The connection's end is the end of what waits.
    let asked = agent.request("POST", "/v1/attest", NONCE);
    let lost = async {
        init.receive().await;
        drop(init);
    };
    let ((code, _), ()) = tokio::join!(asked, lost);
    assert_eq!(code, 503);
}

#[tokio::test]
async fn api_refuses_what_it_does_not_understand() {
    let mut agent = Agent::start(&[]).await;
    let _init = agent.boot().await;
    let large = format!("{{\"nonce\":\"{}\"}}", STANDARD.encode([0; 513]));
    let huge = "x".repeat(100_000);
    for (method, path, body, code, part) in [
        ("GET", "/", "", 404, "/v1/status"),
        ("POST", "/v1/status", "", 405, "GET for /v1/status"),
        ("GET", "/v1/stop", "", 405, "POST"),
        (
            "POST",
            "/metrics",
            "",
            405,
            "GET for /v1/status and /metrics",
        ),
        ("POST", "/v1/attest", "not json", 400, "not understood"),
        ("POST", "/v1/attest", "{\"nonse\":\"\"}", 400, "nonse"),
        ("POST", "/v1/attest", "{\"nonce\":\"*\"}", 400, "not base64"),
        ("POST", "/v1/attest", &large, 400, "513 bytes"),
        ("POST", "/v1/attest", &huge, 413, "16384 bytes"),
        (
            "POST",
            "/v1/stop",
            "{\"grace_ms\":-1}",
            400,
            "not understood",
        ),
    ] {
        let (status, answer) = agent.request(method, path, body).await;
        assert_eq!(status, code, "{method} {path}");
        let error = error(&answer);
        assert!(error.contains(part), "{error}");
    }
    assert_eq!(agent.status().await["state"], "ready");
}

#[tokio::test]
async fn software_nsm_reports_what_the_image_measures_to() {
    let mut agent = Agent::start(&[]).await;
    let starting = agent.event("starting").await;
    let root = starting["nsm_root"].as_str().unwrap();
    let roots = Roots::from_pem(&std::fs::read(root).unwrap()).unwrap();
    let mut nsm = Nsm::socket(&agent.directory().join("nsm.sock")).unwrap();
    for index in [0_u16, 1, 2] {
        let (value, locked) = nsm.describe_pcr(index).unwrap();
        assert!(locked);
        assert_eq!(
            value.to_string(),
            starting["pcrs"][index.to_string()].as_str().unwrap()
        );
    }
    let document = nsm.attestation(None, Some(b"nonce"), None).unwrap();
    let image = std::fs::File::open(agent.folder.path().join("test.eif")).unwrap();
    let measurements = eif::Eif::open(image).unwrap().measurements();
    let policy = Policy::builder()
        .measurements(measurements)
        .build()
        .unwrap();
    let verifier = Verifier::new(roots);
    let verification = verifier.verify(&document, &policy, Nonce::Fresh(b"nonce"));
    assert!(
        verification.outcome.is_ok(),
        "{:?}",
        verification.outcome.err()
    );
    agent.end_init(0).await;
    agent.ended().await;
}

#[tokio::test]
async fn debug_mode_measures_nothing_and_a_kept_root_stays() {
    let kept = tempfile::tempdir().unwrap();
    let kept = kept.path().join("nsm");
    let mut roots = Vec::new();
    for _ in 0..2 {
        let path = kept.to_str().unwrap();
        let mut agent = Agent::start(&["--debug", "--software-nsm-root", path]).await;
        let starting = agent.event("starting").await;
        assert_eq!(starting["debug"], true);
        roots.push(std::fs::read(starting["nsm_root"].as_str().unwrap()).unwrap());
        let mut nsm = Nsm::socket(&agent.directory().join("nsm.sock")).unwrap();
        assert_eq!(nsm.describe_pcr(0).unwrap().0, measurements::Pcr::ZERO);
        agent.end_init(0).await;
        agent.ended().await;
    }
    assert_eq!(roots[0], roots[1]);
    assert!(kept.join("root.key").exists());
}

#[tokio::test]
async fn commands_find_their_enclave() {
    let folder = tempfile::tempdir().unwrap();
    let none = output(command(folder.path(), "status")).await;
    assert_eq!(none.status.code(), Some(1));
    assert!(crate::agent::error_line(&none).contains("no enclave is running"));

    let agent = Agent::start(&[]).await;
    let init = Init::connect(&agent, 1).await;
    let mut absent = command(agent.folder.path(), "stop");
    absent.args(["--name", "absent"]);
    let absent = output(absent).await;
    assert_eq!(absent.status.code(), Some(1));
    assert!(crate::agent::error_line(&absent).contains("`absent`"));
    let mut json = command(agent.folder.path(), "status");
    json.arg("--json");
    let status: Value = serde_json::from_slice(&output(json).await.stdout).unwrap();
    assert_eq!(status["name"], "test");
    drop(init);
}
