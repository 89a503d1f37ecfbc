//! `POST /v1/verify`: what is accepted, what is rejected, and what is said of it.

use std::time::{Duration, SystemTime};

use attestation::{Nonce, Policy, Roots, Verifier};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::enclave::{Enclave, MEASUREMENTS};
use crate::results::claims;
use crate::server::{World, verify_body};

fn submod(reply: &Value) -> Value {
    claims(reply["ear"].as_str().unwrap())["submods"]["nitro-enclave"].clone()
}

#[test]
fn a_document_for_a_challenge_is_accepted_and_the_result_says_so() {
    let world = World::new();
    let server = world.start(&[
        "--developer",
        "Example Ltd",
        "--issuer",
        "https://example.com",
    ]);
    let challenge = server.challenge(&json!({ "policy": "payments" }));
    let document = world.enclave.attest(&challenge);
    let reply = server.verify(&document, &challenge);
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    let reply = reply.json();
    assert_eq!(reply["report"]["accepted"], true);
    assert_eq!(reply["report"]["schema"], 1);

    let claims = claims(reply["ear"].as_str().unwrap());
    assert_eq!(claims["ear_status"], "affirming");
    assert_eq!(claims["ear_verifier_id"]["developer"], "Example Ltd");
    assert_eq!(claims["iss"], "https://example.com");
    assert_eq!(
        claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(),
        300
    );
    let submod = submod(&reply);
    assert_eq!(
        submod["ear_trustworthiness_vector"],
        // The root is not AWS's, so nothing is said of hardware.
        json!({ "instance-identity": 2, "configuration": 2, "executables": 3 })
    );
    assert_eq!(submod["ear_appraisal_policy_ids"][0], "payments");
    assert_eq!(submod["ear_verifier_claims"]["freshness"], "challenge");
    assert_eq!(submod["ear_verifier_claims"]["image"], "payments 1.4");
    let attester = &submod["ear_attester_claims"];
    assert_eq!(
        attester["module_id"],
        "i-0123456789abcdef0-enc0123456789abcdef"
    );
    assert_eq!(attester["purpose"], "workload");
    assert_eq!(attester["pcrs"]["0"], hex::encode([1; 48]));
    assert_eq!(attester["nonce"], hex::encode(&challenge));
    assert_eq!(attester["user_data"], hex::encode("user data"));
    assert_eq!(attester["public_key"], hex::encode("public key"));
}

#[test]
fn the_report_is_the_librarys() {
    let world = World::new();
    let server = world.start(&[]);
    let document = world.enclave.attest(b"own nonce");
    let body = json!({
        "document": STANDARD.encode(&document),
        "policy": "payments",
        "nonce": hex::encode("own nonce"),
        "ear": false,
    });
    let reply = server.post("/v1/verify", &body).json();
    assert_eq!(reply.as_object().unwrap().len(), 1, "{reply}");

    let policy = Policy::read(&world.policies().join("payments.toml")).unwrap();
    let roots = Roots::from_pem(world.enclave.root_pem.as_bytes()).unwrap();
    let now_ms = reply["report"]["checked_at_ms"].as_u64().unwrap();
    let nonce = Nonce::Fresh(b"own nonce");
    let verification = Verifier::new(roots).verify_at(&document, &policy, nonce, now_ms);
    let report = verification.report;
    assert_eq!(reply["report"], serde_json::to_value(report).unwrap());
}

#[test]
fn clock_skew_is_kept_where_the_service_is_behind_the_hypervisor() {
    let report = |clock: fn() -> SystemTime| {
        let world = World::with(Enclave::with_clock(Some(MEASUREMENTS), clock));
        let server = world.start(&[]);
        let challenge = server.challenge(&json!({}));
        let document = world.enclave.attest(&challenge);
        let reply = server.verify(&document, &challenge).json();
        reply["report"].clone()
    };
    let good = report(|| SystemTime::now() + Duration::from_secs(59));
    assert_eq!(good["accepted"], true, "{good}");
    // The time that a request takes is not to bring it below a minute.
    let early = loop {
        let report = report(|| SystemTime::now() + Duration::from_secs(61));
        let made = report["document"]["timestamp_ms"].as_u64().unwrap();
        if made > report["checked_at_ms"].as_u64().unwrap() + 60_000 {
            break report;
        }
    };
    assert_eq!(early["rejection"]["rule"], "freshness.future", "{early}");
    let reason = early["rejection"]["reason"].as_str().unwrap();
    // A request may well take less than a millisecond.
    let behind = ["the clock is 60.", "the clock is 61 s "];
    assert!(
        behind.iter().any(|start| reason.starts_with(start)),
        "{reason}"
    );
    assert!(reason.contains(" s behind"), "{reason}");
}

#[test]
fn a_rejected_document_is_an_answer_with_a_contraindicated_result() {
    let world = World::new();
    let server = world.start(&[]);
    let challenge = server.challenge(&json!({}));
    let document = world.enclave.attest(b"another nonce");
    let reply = server.verify(&document, &challenge);
    assert_eq!(reply.status, 200);
    let reply = reply.json();
    assert_eq!(reply["report"]["rejection"]["rule"], "policy.nonce");
    let submod = submod(&reply);
    assert_eq!(submod["ear_status"], "contraindicated");
    assert_eq!(
        submod["ear_trustworthiness_vector"],
        json!({ "instance-identity": 99 })
    );
    assert_eq!(
        submod["ear_verifier_claims"]["rejection"]["rule"],
        "policy.nonce"
    );
    // The document is authentic, so what it holds is repeated.
    assert_eq!(
        submod["ear_attester_claims"]["nonce"],
        hex::encode("another nonce")
    );
    assert_eq!(
        server.metric("attest_rejected_total{rule=\"policy.nonce\"}"),
        1
    );
}

#[test]
fn nothing_that_is_not_signed_gets_into_a_result() {
    let world = World::new();
    let server = world.start(&[]);
    let challenge = server.challenge(&json!({}));
    let genuine = world.enclave.attest(&challenge);
    let mut forged = genuine.clone();
    *forged.last_mut().unwrap() ^= 1;
    let foreign = Enclave::new(Some(MEASUREMENTS)).attest(&challenge);
    for (document, rule, instance) in [
        (b"no document".to_vec(), "cose.structure", 1),
        (Vec::new(), "cbor.encoding", 1),
        (forged, "document.signature", 99),
        (foreign, "chain.root", 97),
    ] {
        let reply = server.verify(&document, &challenge).json();
        let rejection = &reply["report"]["rejection"];
        let family = |rule: &str| rule.split('.').next().unwrap().to_owned();
        let found = rejection["rule"].as_str().unwrap();
        assert!(found == rule || family(found) == "cbor", "{rejection}");
        let submod = submod(&reply);
        assert_eq!(submod["ear_status"], "contraindicated");
        assert_eq!(
            submod["ear_trustworthiness_vector"],
            json!({ "instance-identity": instance })
        );
        assert!(submod.get("ear_attester_claims").is_none(), "{submod}");
    }
    // And none of it has used the challenge up.
    let reply = server.verify(&genuine, &challenge).json();
    assert_eq!(reply["report"]["accepted"], true);
}

#[test]
fn an_unknown_image_and_debug_mode_show_in_the_result() {
    let other = measurements::Measurements {
        pcr2: measurements::Pcr::new([9; 48]),
        ..MEASUREMENTS
    };
    for (measurements, policy, rule, vector, status) in [
        (
            Some(other),
            json!("payments"),
            json!("policy.image"),
            json!({ "instance-identity": 2, "executables": 33 }),
            "contraindicated",
        ),
        (
            None,
            json!("payments"),
            json!("policy.debug"),
            json!({ "instance-identity": 2, "executables": 33, "configuration": 96 }),
            "contraindicated",
        ),
        (
            None,
            json!({ "allow_any_image": true, "allow_debug": true }),
            Value::Null,
            json!({ "instance-identity": 2, "configuration": 32 }),
            "warning",
        ),
        (
            Some(other),
            json!({ "allow_any_image": true }),
            Value::Null,
            json!({ "instance-identity": 2 }),
            "warning",
        ),
        (
            Some(other),
            json!({ "pcrs": { "0": hex::encode([1; 48]), "16": hex::encode([7; 48]) } }),
            json!("policy.pcr.16"),
            json!({ "instance-identity": 2, "executables": 3 }),
            "contraindicated",
        ),
    ] {
        let world = World::with(Enclave::new(measurements));
        let server = world.start(&["--allow-inline-policies"]);
        let challenge = server.challenge(&json!({}));
        let mut body = verify_body(&world.enclave.attest(&challenge), &challenge);
        body["policy"] = policy;
        let reply = server.post("/v1/verify", &body).json();
        let rejection = &reply["report"]["rejection"];
        assert_eq!(
            rejection.get("rule").unwrap_or(&Value::Null),
            &rule,
            "{rejection}"
        );
        let submod = submod(&reply);
        assert_eq!(submod["ear_trustworthiness_vector"], vector);
        assert_eq!(submod["ear_status"], status);
    }
}

#[test]
fn a_policy_in_a_request_is_known_by_its_digest_only() {
    let world = World::new();
    let server = world.start(&["--allow-inline-policies"]);
    let challenge = server.challenge(&json!({}));
    let mut body = verify_body(&world.enclave.attest(&challenge), &challenge);
    body["policy"] = json!({ "allow_any_image": true });
    let reply = server.post("/v1/verify", &body).json();
    assert_eq!(reply["report"]["accepted"], true);
    let policies = server.get("/v1/policies").json();
    let any = policies["policies"]
        .as_array()
        .unwrap()
        .iter()
        .find(|policy| policy["id"] == "any");
    assert_eq!(
        submod(&reply)["ear_appraisal_policy_ids"],
        json!([any.unwrap()["digest"]])
    );
}

#[test]
fn the_log_names_who_asked_and_what_came_of_it_and_no_secret() {
    let world = World::new();
    let server = world.start(&[]);
    let challenge = server.challenge(&json!({}));
    let document = world.enclave.attest(&challenge);
    let token = server.verify(&document, &challenge).json()["ear"]
        .as_str()
        .unwrap()
        .to_owned();
    server.verify(&document, &challenge);
    server.get("/secret-path?with=a-secret");
    let log = server.log();
    let requests: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|line| line["message"] == "request")
        .collect();
    assert_eq!(requests.len(), 4, "{log}");
    assert_eq!(requests[1]["accepted"], true);
    assert_eq!(requests[1]["policy"], "payments");
    assert_eq!(requests[2]["problem"], "challenge-used");
    assert_eq!(requests[3]["path"], "other");
    assert!(requests.iter().all(|line| line["client"] == "127.0.0.1"));
    for secret in [
        hex::encode(&challenge),
        STANDARD.encode(&document),
        token,
        "secret".to_owned(),
    ] {
        assert!(!log.contains(&secret), "{secret}");
    }
}
