//! The relay of sealed secrets, and of challenges for the key that they are sealed to: by
//! the local API, and through the attestation gate.

use std::process::Stdio;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use link::control::{FromAgent, FromInit, HealthState, MAX_SEALED_SECRET, SecretCounts};
use link::{Bytes, Text};
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::sleep;

use crate::agent::{Agent, Init, command, error_line, output};
use crate::fake_aws::FakeAws;
use crate::gate;

/// How often one request of the gate is followed.
const MAX_SUBMISSIONS: usize = 5;

/// `parent-agent secret put` of these bytes.
fn put(agent: &Agent, sealed: &[u8]) -> Command {
    let folder = agent.folder.path();
    let file = folder.join("sealed");
    std::fs::write(&file, sealed).unwrap();
    let mut put = Command::new(env!("CARGO_BIN_EXE_parent-agent"));
    put.args(["secret", "put", "--state-dir"])
        .args([folder.join("s"), file])
        .stdin(Stdio::null())
        .kill_on_drop(true);
    put
}

#[tokio::test]
async fn sealing_challenges_are_relayed() {
    let mut agent = Agent::start(&[]).await;
    let mut init = agent.boot().await;
    let mut attest = command(agent.folder.path(), "attest");
    attest.args(["--nonce", "00ff", "--sealing"]);
    let asked = tokio::spawn(output(attest));
    let Some(FromAgent::SealingChallenge { id, nonce }) = init.receive().await else {
        panic!("no challenge");
    };
    assert_eq!(&*nonce, [0x00, 0xff]);
    let document = Bytes::new(*b"document").unwrap();
    init.send(FromInit::Document { id, document }).await;
    let answer = asked.await.unwrap();
    assert!(answer.status.success(), "{answer:?}");
    assert_eq!(answer.stdout, b"document");
}

#[tokio::test]
async fn sealed_secrets_are_put_and_refused() {
    let mut agent = Agent::start(&[]).await;
    let mut init = agent.boot().await;
    let largest = vec![7; MAX_SEALED_SECRET];
    for is_opened in [true, false] {
        let asked = tokio::spawn(output(put(&agent, &largest)));
        let Some(FromAgent::SealedSecret { id, sealed }) = init.receive().await else {
            panic!("no secret");
        };
        assert_eq!(*sealed, *largest);
        if is_opened {
            init.send(FromInit::SecretOpened { id }).await;
            let put = asked.await.unwrap();
            assert!(put.status.success(), "{put:?}");
        } else {
            let reason = Text::new("no such name");
            init.send(FromInit::SecretRefused { id, reason }).await;
            let put = asked.await.unwrap();
            assert_eq!(put.status.code(), Some(1));
            let error = error_line(&put);
            assert!(
                error.contains("the enclave refused: no such name"),
                "{error}"
            );
        }
    }
    // What is too large does not reach the enclave, by whatever way.
    let too_large = vec![7; MAX_SEALED_SECRET + 1];
    let refused = output(put(&agent, &too_large)).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(error_line(&refused).contains("more than 33792 bytes"));
    for (body, status) in [
        (json!({ "sealed": STANDARD.encode(&too_large) }), 400),
        (json!({ "sealed": "A".repeat(64 * 1024) }), 413),
        (json!({ "sealed": "~" }), 400),
        (json!({}), 400),
    ] {
        let body = body.to_string();
        let (code, _) = agent.request("POST", "/v1/secrets", &body).await;
        assert_eq!(code, status);
    }
}

/// Says that one secret is declared, and whether the enclave has it.
async fn tell(init: &mut Init, delivered: u32, waiting: &str) {
    init.send(FromInit::Health {
        state: HealthState::Starting,
        detail: Text::new(waiting),
    })
    .await;
    init.send(FromInit::Secrets(SecretCounts {
        declared: 1,
        delivered,
        failed_refreshes: 0,
    }))
    .await;
}

/// The nonce of the next challenge for the sealing key, answered with a document.
async fn attest(init: &mut Init) -> Vec<u8> {
    let Some(FromAgent::SealingChallenge { id, nonce }) = init.receive().await else {
        panic!("no challenge");
    };
    let document = Bytes::new(*b"document").unwrap();
    init.send(FromInit::Document { id, document }).await;
    nonce.to_vec()
}

/// What the gate was asked by this name, once it was asked so often.
async fn asked(aws: &FakeAws, action: &str, times: usize) -> Vec<Value> {
    loop {
        let asked = aws.state().asked.clone();
        let asked: Vec<_> = asked
            .into_iter()
            .filter(|asked| asked["action"] == action)
            .collect();
        if asked.len() >= times {
            return asked;
        }
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn sealed_secrets_through_the_gate_reach_an_enclave_that_waits_for_them() {
    let aws = FakeAws::start().await;
    // A deployment waits for the enclave, too.
    aws.state().nonce = Some("01".to_owned());
    aws.state().sealing = Some(json!({ "nonce": "00ff" }));
    let mut agent = gate::spawn(&aws);
    agent.until_init_waits().await;
    agent.beat().await;
    let mut init = Init::connect(&agent, 1).await;
    tell(&mut init, 0, "waits for the sealed secret `a`").await;
    assert_eq!(attest(&mut init).await, [0x00, 0xff]);
    let brought = asked(&aws, "seal_document", 1).await;
    let expected = json!({ "action": "seal_document", "enclave_id": "E_1", "nonce": "00ff",
        "document": STANDARD.encode("document") });
    assert_eq!(brought, [expected]);
    let sealed = json!({ "nonce": "00ff", "sealed": STANDARD.encode("sealed") });
    aws.state().sealing = Some(sealed);
    let Some(FromAgent::SealedSecret { id, sealed }) = init.receive().await else {
        panic!("no secret");
    };
    assert_eq!(*sealed, *b"sealed");
    init.send(FromInit::SecretOpened { id }).await;
    let outcome = asked(&aws, "seal_outcome", 1).await;
    let expected = json!({ "action": "seal_outcome", "enclave_id": "E_1", "nonce": "00ff",
        "opened": true, "message": "" });
    assert_eq!(outcome, [expected]);
    // Only now is there a workload that a deployment could be about.
    assert_eq!(asked(&aws, "document", 0).await, [Value::Null; 0]);
    let waited = asked(&aws, "challenge", 1).await;
    assert_eq!(waited[0]["waiting"], "waits for the sealed secret `a`");
    tell(&mut init, 1, "").await;
    init.send(FromInit::Ready { at_us: 1000 }).await;
    assert_eq!(gate::answer(&mut init).await, [1]);
    agent.event("gate").await;
    let last = asked(&aws, "challenge", 1).await.pop().unwrap();
    assert_eq!(last.get("waiting"), None);
    agent.end_init(0).await;
    agent.ended().await;
}

#[tokio::test]
async fn sealed_secrets_through_the_gate_are_refused_in_the_enclaves_own_words() {
    let aws = FakeAws::start().await;
    let (agent, mut init) = gate::start(&aws).await;
    aws.state().sealing = Some(json!({ "nonce": "01" }));
    let Some(FromAgent::SealingChallenge { id, .. }) = init.receive().await else {
        panic!("no challenge");
    };
    let reason = Text::new("none declared");
    init.send(FromInit::ChallengeFailed { id, reason }).await;
    let outcome = asked(&aws, "seal_outcome", 1).await.pop().unwrap();
    assert_eq!(outcome["opened"], false);
    assert_eq!(outcome["message"], "none declared");

    aws.state().sealing = Some(json!({ "nonce": "02", "sealed": "AA==" }));
    let Some(FromAgent::SealedSecret { id, .. }) = init.receive().await else {
        panic!("no secret");
    };
    let reason = Text::new("another sender");
    init.send(FromInit::SecretRefused { id, reason }).await;
    let outcome = asked(&aws, "seal_outcome", 2).await.pop().unwrap();
    assert_eq!(outcome["nonce"], "02");
    assert_eq!(outcome["message"], "another sender");

    // A document that the gate refuses may be followed by a better one.
    let refusal = json!({ "accepted": false, "message": "PCR16 differs" });
    aws.state().verdicts.push_back(refusal);
    aws.state().sealing = Some(json!({ "nonce": "03" }));
    for _ in 0..2 {
        assert_eq!(attest(&mut init).await, [3]);
    }
    asked(&aws, "seal_document", 2).await;

    // What is no sealed secret does not reach the enclave.
    for sealed in ["~".to_owned(), "A".repeat(64 * 1024)] {
        let failures = agent.status().await["gate"]["failures"].as_u64();
        aws.state().sealing = Some(json!({ "nonce": "04", "sealed": sealed }));
        while agent.status().await["gate"]["failures"].as_u64() == failures {
            sleep(Duration::from_millis(20)).await;
        }
    }
    agent.end_init(0).await;
    let (_, _, stderr) = agent.ended().await;
    assert!(
        stderr.contains("through the attestation gate: another sender"),
        "{stderr}"
    );
}

/// How often the gate is told of the outcome, and the enclave asked, by a gate that goes on
/// offering `sealing`.
async fn outcomes_of(sealing: Value) -> usize {
    let aws = FakeAws::start().await;
    aws.state().keeps_sealing = true;
    let (agent, mut init) = gate::start(&aws).await;
    aws.state().sealing = Some(sealing);
    for _ in 0..MAX_SUBMISSIONS {
        match init.receive().await {
            Some(FromAgent::SealingChallenge { id, .. }) => {
                let reason = Text::new("none declared");
                init.send(FromInit::ChallengeFailed { id, reason }).await;
            }
            Some(FromAgent::SealedSecret { id, .. }) => {
                init.send(FromInit::SecretOpened { id }).await;
            }
            other => panic!("{other:?}"),
        }
    }
    // The gate is asked on, and its request is not followed any more.
    let told = asked(&aws, "seal_outcome", MAX_SUBMISSIONS).await.len();
    let so_far = asked(&aws, "challenge", 0).await.len();
    asked(&aws, "challenge", so_far + 5).await;
    let after = asked(&aws, "seal_outcome", told).await.len();
    assert_eq!(after, told);
    agent.end_init(0).await;
    agent.ended().await;
    after
}

#[tokio::test]
async fn sealed_secrets_are_not_handed_in_for_ever_for_a_gate_that_goes_on_offering_them() {
    let sealed = json!({ "nonce": "01", "sealed": STANDARD.encode("sealed") });
    assert_eq!(outcomes_of(sealed).await, MAX_SUBMISSIONS);
}

#[tokio::test]
async fn sealing_challenges_that_the_enclave_refuses_are_not_relayed_for_ever() {
    assert_eq!(outcomes_of(json!({ "nonce": "01" })).await, MAX_SUBMISSIONS);
}

#[tokio::test]
async fn sealed_secrets_are_not_all_that_the_gate_is_told_an_enclave_waits_for() {
    let aws = FakeAws::start().await;
    let agent = gate::spawn(&aws);
    agent.until_init_waits().await;
    agent.beat().await;
    let mut init = Init::connect(&agent, 1).await;
    let detail = Text::new("waits for the seed of the family `f`");
    let state = HealthState::Starting;
    init.send(FromInit::Health { state, detail }).await;
    let waited = asked(&aws, "challenge", 1).await;
    assert_eq!(waited[0]["waiting"], "waits for the seed of the family `f`");
    agent.end_init(0).await;
    agent.ended().await;
}
