//! Challenges: for one acceptance, under concurrency and over restarts.

use std::sync::Barrier;
use std::thread;

use serde_json::json;

use crate::server::{World, eventually, verify_body};

#[test]
fn of_64_replays_at_once_exactly_one_wins() {
    const REPLAYS: usize = 64;
    let world = World::new();
    let server = world.start(&["--threads", "4"]);
    let challenge = server.challenge(&json!({}));
    let document = world.enclave.attest(&challenge);
    let start = Barrier::new(REPLAYS);
    let replies: Vec<_> = thread::scope(|scope| {
        let replay = || {
            start.wait();
            server.verify(&document, &challenge)
        };
        let threads: Vec<_> = (0..REPLAYS).map(|_| scope.spawn(replay)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let (won, lost): (Vec<_>, Vec<_>) = replies.iter().partition(|reply| reply.status == 200);
    assert_eq!(won.len(), 1);
    assert_eq!(won[0].json()["report"]["accepted"], true);
    assert!(lost.iter().all(|reply| reply.problem() == "challenge-used"));
    assert!(lost.iter().all(|reply| !reply.body.contains("eyJ")));
    let used = |label| server.metric(&format!("attest_challenges_used_total{{use=\"{label}\"}}"));
    assert_eq!((used("first"), used("again")), (1, 63));
    // What was accepted is what was answered.
    assert_eq!(server.metric("attest_accepted_total"), 1);
    assert_eq!(server.metric("attest_signed_total"), 1);
    let replays = server.metric("attest_rejected_total{rule=\"challenge.used\"}");
    assert_eq!(replays, 63);
}

#[test]
fn an_open_challenge_survives_a_crash_and_so_does_a_used_one() {
    let world = World::new();
    let server = world.start(&[]);
    let challenge = server.challenge(&json!({}));
    let document = world.enclave.attest(&challenge);
    server.kill();

    let server = world.start(&[]);
    let reply = server.verify(&document, &challenge);
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(reply.json()["report"]["accepted"], true);
    server.kill();

    let server = world.start(&[]);
    assert_eq!(
        server.verify(&document, &challenge).problem(),
        "challenge-used"
    );
}

#[test]
fn a_challenge_expires() {
    let world = World::new();
    let server = world.start(&["--challenge-lifetime", "1s"]);
    let challenge = server.challenge(&json!({}));
    // Rejected as long as the challenge is open, so it is not used up meanwhile.
    let document = world.enclave.attest(b"another nonce");
    let reply = eventually("it does not expire", || {
        let reply = server.verify(&document, &challenge);
        (reply.status != 200).then_some(reply)
    });
    assert_eq!(reply.status, 410);
    assert_eq!(reply.problem(), "challenge-expired");
    let replays = server.metric("attest_rejected_total{rule=\"challenge.expired\"}");
    assert_eq!(replays, 1);
}

#[test]
fn a_challenge_for_a_policy_cannot_be_used_up_under_another() {
    let world = World::new();
    let server = world.start(&["--allow-inline-policies"]);
    let challenge = server.challenge(&json!({ "policy": "payments" }));
    let document = world.enclave.attest(&challenge);
    let mut body = verify_body(&document, &challenge);
    for lax in [json!("any"), json!({ "allow_any_image": true })] {
        body["policy"] = lax;
        let reply = server.post("/v1/verify", &body);
        assert_eq!(reply.problem(), "unknown-challenge");
    }
    let reply = server.verify(&document, &challenge).json();
    assert_eq!(reply["report"]["accepted"], true);
}

#[test]
fn a_nonce_of_the_callers_own_is_no_challenge() {
    let world = World::new();
    let server = world.start(&[]);
    let document = world.enclave.attest(b"my own nonce");
    assert_eq!(
        server.verify(&document, b"my own nonce").problem(),
        "unknown-challenge"
    );
    let mut body = verify_body(&document, &[]);
    body.as_object_mut().unwrap().remove("challenge");
    assert_eq!(server.post("/v1/verify", &body).problem(), "nonce-required");
    body["nonce"] = json!(hex::encode("my own nonce"));
    // The caller answers for its nonce: the service does not count its uses.
    for _ in 0..2 {
        let reply = server.post("/v1/verify", &body).json();
        assert_eq!(reply["report"]["accepted"], true);
    }
}

#[test]
fn a_challenge_is_never_taken_for_a_nonce_of_the_callers_own() {
    let world = World::new();
    let server = world.start(&[]);
    for request in [
        json!({}),
        json!({ "policy": "payments" }),
        json!({ "policy": "any" }),
    ] {
        let challenge = server.challenge(&request);
        let document = world.enclave.attest(&challenge);
        let mut body = verify_body(&document, &challenge);
        let body = body.as_object_mut().unwrap();
        body.remove("challenge");
        body.insert("nonce".to_owned(), json!(hex::encode(&challenge)));
        for ear in [true, false] {
            body.insert("ear".to_owned(), json!(ear));
            let reply = server.post("/v1/verify", &json!(body));
            assert_eq!(reply.problem(), "challenge-as-nonce", "{request}");
        }
        // It has not been used up by that.
        if request["policy"] != "any" {
            let reply = server.verify(&document, &challenge).json();
            assert_eq!(reply["report"]["accepted"], true);
        }
    }
}
