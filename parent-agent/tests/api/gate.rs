//! The attestation gate, as a function that is invoked.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use link::control::{FromAgent, FromInit};
use serde_json::json;

use crate::agent::{Agent, Init};
use crate::fake_aws::{FakeAws, Fault};
use crate::image::Builder;

const ARGUMENTS: [&str; 6] = [
    "--gate",
    "gate",
    "--gate-interval",
    "50ms",
    "--enclave-id",
    "E_1",
];

/// An agent that serves the gate.
pub(crate) fn spawn(aws: &FakeAws) -> Agent {
    let folder = tempfile::tempdir().unwrap();
    let image = Builder::new(&[], &[]);
    Agent::spawn_with(folder, image, &ARGUMENTS, &aws.environment())
}

pub(crate) async fn start(aws: &FakeAws) -> (Agent, Init) {
    let mut agent = spawn(aws);
    agent.until_init_waits().await;
    let init = agent.boot().await;
    (agent, init)
}

/// Answers the next challenge, and returns its nonce.
pub(crate) async fn answer(init: &mut Init) -> Vec<u8> {
    let Some(FromAgent::Challenge { id, nonce, .. }) = init.receive().await else {
        panic!("no challenge");
    };
    let document = b"document".to_vec();
    init.send(FromInit::Document {
        id,
        document: link::Bytes::new(document).unwrap(),
    })
    .await;
    nonce.to_vec()
}

#[tokio::test]
async fn gate_is_shown_a_document_with_its_nonce() {
    let aws = FakeAws::start().await;
    aws.state().nonce = Some("00ff".to_owned());
    let (mut agent, mut init) = start(&aws).await;
    assert_eq!(answer(&mut init).await, [0x00, 0xff]);
    let verdict = agent.event("gate").await;
    assert_eq!(verdict["accepted"], true);
    let asked = aws.state().asked.clone();
    assert_eq!(
        asked[0],
        json!({ "action": "challenge", "enclave_id": "E_1" })
    );
    let document = asked
        .iter()
        .find(|asked| asked["action"] == "document")
        .unwrap();
    assert_eq!(document["document"], STANDARD.encode("document"));
    let gate = agent.status().await["gate"].clone();
    assert_eq!(gate["verdict"], "accepted");
    assert_eq!(gate["accepted"], 1);

    // It is asked again for as long as the enclave runs.
    aws.state().nonce = Some("abcd".to_owned());
    assert_eq!(answer(&mut init).await, [0xab, 0xcd]);
    agent.event("gate").await;
    let (_, metrics) = agent.request("GET", "/metrics", "").await;
    let metrics = String::from_utf8(metrics).unwrap();
    assert!(metrics.contains("enclave_gate_documents_total{verdict=\"accepted\"} 2\n"));
    agent.end_init(0).await;
    agent.ended().await;
}

#[tokio::test]
async fn gate_refusal_is_shown_with_its_reason_and_is_not_the_end() {
    let aws = FakeAws::start().await;
    let refusal = json!({ "accepted": false, "message": "PCR16 differs" });
    aws.state().verdicts.push_back(refusal);
    aws.state().nonce = Some("01".to_owned());
    let (mut agent, mut init) = start(&aws).await;
    answer(&mut init).await;
    let verdict = agent.event("gate").await;
    assert_eq!(verdict["message"], "PCR16 differs");
    assert_eq!(agent.status().await["gate"]["verdict"], "refused");
    answer(&mut init).await;
    assert_eq!(agent.event("gate").await["accepted"], true);
    agent.end_init(0).await;
    agent.ended().await;
}

#[tokio::test]
async fn gate_that_fails_is_asked_again() {
    let aws = FakeAws::start().await;
    aws.state().gate_faults = [
        Fault::Refused(429, "TooManyRequestsException"),
        Fault::Function,
        Fault::Refused(403, "AccessDeniedException"),
    ]
    .into();
    aws.state().nonce = Some("01".to_owned());
    let (mut agent, mut init) = start(&aws).await;
    answer(&mut init).await;
    agent.event("gate").await;
    let gate = agent.status().await["gate"].clone();
    assert_eq!(gate["verdict"], "accepted");
    // The throttled invocation was repeated without being noticed.
    assert_eq!(gate["failures"], 2);
    agent.end_init(0).await;
    let (_, _, stderr) = agent.ended().await;
    assert!(
        stderr.contains("the function gate has failed: Boom: it broke"),
        "{stderr}"
    );
    assert!(
        stderr.contains("the attestation gate answers again"),
        "{stderr}"
    );
}

#[tokio::test]
async fn gate_waits_for_an_enclave_that_makes_no_document() {
    let aws = FakeAws::start().await;
    aws.state().nonce = Some("01".to_owned());
    let (mut agent, mut init) = start(&aws).await;
    let Some(FromAgent::Challenge { id, .. }) = init.receive().await else {
        panic!("no challenge");
    };
    init.send(FromInit::ChallengeFailed {
        id,
        reason: link::Text::new("no entropy"),
    })
    .await;
    answer(&mut init).await;
    agent.event("gate").await;
    agent.end_init(0).await;
    let (_, _, stderr) = agent.ended().await;
    assert!(
        stderr.contains("the enclave refused: no entropy"),
        "{stderr}"
    );
}

#[tokio::test]
async fn gate_without_a_region_is_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let environment = [("AWS_EC2_METADATA_DISABLED", "true".to_owned())];
    let image = Builder::new(&[], &[]);
    let agent = Agent::spawn_with(folder, image, &ARGUMENTS, &environment);
    let (code, error) = agent.failed().await;
    assert_eq!(code, 4);
    assert!(error.contains("set AWS_REGION"), "{error}");
}
