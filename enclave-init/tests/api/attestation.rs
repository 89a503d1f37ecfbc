//! Challenges, and what is measured at run time.

use attestation::{Document, Nonce, Policy, Purpose, Roots, Verifier};
use aws_lc_rs::digest::{SHA384, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use link::Bytes;
use link::control::{FromAgent, FromInit};
use link::logs::LogStream;
use measurements::Pcr;
use nsm::Nsm;

use crate::agent::Control;
use crate::enclave::{Image, LIMIT, MEASUREMENTS, Prepared, message};

async fn challenge(control: &mut Control, id: u64, nonce: &[u8]) -> Result<Vec<u8>, String> {
    control
        .send(FromAgent::Challenge {
            id,
            nonce: Bytes::new(nonce).unwrap(),
        })
        .await;
    message(control, |message| match message {
        FromInit::Document {
            id: answered,
            document,
        } if *answered == id => Some(Ok(document.to_vec())),
        FromInit::ChallengeFailed {
            id: answered,
            reason,
        } if *answered == id => Some(Err(reason.to_string())),
        _ => None,
    })
    .await
}

fn accept(prepared: &Prepared, document: &[u8], policy: &Policy, nonce: &[u8]) {
    let roots = Roots::from_pem(prepared.root_pem.as_bytes()).unwrap();
    let verifier = Verifier::new(roots);
    let verification = verifier.verify(document, policy, Nonce::Fresh(nonce));
    verification.outcome.unwrap();
}

/// What PCR16 must be.
fn measured(config: &[u8]) -> Pcr {
    Pcr::ZERO.extend(digest(&SHA384, config).as_ref())
}

#[tokio::test]
async fn challenge_is_answered_with_a_document_that_verifies() {
    let config = b"tenant=7\0\xff";
    let image = Image::new(&["wait"]).agent(|agent| agent.runtime_config = config.to_vec());
    let (enclave, mut control) = image.boot().await;
    for (id, nonce) in [(7, [1; 32].as_slice()), (8, &[2; 512])] {
        let document = challenge(&mut control, id, nonce).await.unwrap();
        let policy = Policy::builder()
            .measurements(MEASUREMENTS)
            .pcr(16, measured(config))
            .purpose(Purpose::RelayedChallenge)
            .build()
            .unwrap();
        accept(&enclave.prepared, &document, &policy, nonce);
    }
}

/// The body of a frame: challenge `id` as `[1, [id, nonce, …]]`, written by hand.
fn challenge_body(id: u8, nonce: &[u8], further: &[&[u8]]) -> Vec<u8> {
    let fields = u8::try_from(2 + further.len()).unwrap();
    let mut body = vec![0x82, 0x01, 0x80 | fields, id];
    body.extend(byte_string(nonce));
    body.extend(further.concat());
    body
}

/// A byte string in CBOR.
fn byte_string(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap().to_be_bytes();
    [&[0x59], length.as_slice(), bytes].concat()
}

async fn answer(control: &mut Control, id: u64) -> Vec<u8> {
    let document = message(control, |message| match message {
        FromInit::Document {
            id: answered,
            document,
        } if *answered == id => Some(document.to_vec()),
        _ => None,
    });
    document.await
}

/// Checks every field that a document has: only the nonce is the agent's, and in
/// PCR16 the runtime configuration.
fn assert_the_agents_is_the_nonce(
    prepared: &Prepared,
    document: &[u8],
    nonce: &[u8],
    identity: Option<&[u8]>,
) {
    let policy = Policy::builder()
        .measurements(MEASUREMENTS)
        .pcr(16, measured(b""))
        .purpose(Purpose::RelayedChallenge)
        .build()
        .unwrap();
    accept(prepared, document, &policy, nonce);
    let document = Document::parse(document).unwrap();
    assert_eq!(
        document.unverified_user_data(),
        Some(b"enclave-purpose:relayed-challenge".as_slice())
    );
    assert_eq!(document.unverified_public_key(), identity);
    for index in [3, 8, 15, 17, 31] {
        let value = document.unverified_pcr(index);
        assert!(value.is_none_or(|value| *value == [0; 48]), "PCR{index}");
    }
}

#[tokio::test]
async fn a_hostile_agent_chooses_the_nonce_and_nothing_else() {
    let named = format!(
        "request tcp PUT /v1/identity {}",
        serde_json::json!({ "public_key": STANDARD.encode(b"the workload's key") })
    );
    for (instructions, identity) in [
        (vec!["wait"], None),
        (
            vec![named.as_str(), "say named", "wait"],
            Some(b"the workload's key".as_slice()),
        ),
    ] {
        let (enclave, mut control) = Image::new(&instructions).boot().await;
        if identity.is_some() {
            enclave.said("named").await;
        }
        let forged = byte_string(b"enclave-purpose:self-check");
        let (data, key) = (byte_string(b"user data"), byte_string(b"the agent's key"));
        let (null, map) = ([0xf6], b"\xa1\x69user_data\x44data");
        // As protocol version 1 had it, and further fields of every type.
        for (id, further) in (1..).zip([
            &[][..],
            &[data.as_slice()],
            &[&data, &key],
            &[&null, &key],
            &[&forged, &key],
            &[&data, &key, &data, &key, map],
            &[map],
            &[&byte_string(&vec![7; 60_000])],
        ]) {
            for nonce in [b"n".as_slice(), &[id; 512]] {
                control = control.send_body(&challenge_body(id, nonce, further)).await;
                let document = answer(&mut control, id.into()).await;
                assert_the_agents_is_the_nonce(&enclave.prepared, &document, nonce, identity);
            }
        }
    }
}

#[tokio::test]
async fn identity_key_that_the_init_has_made_is_in_relayed_documents() {
    let instructions = ["request tcp POST /v1/identity ", "say made", "wait"];
    let (enclave, control) = Image::new(&instructions).boot().await;
    enclave.said("made").await;
    let (_, made) = crate::credentials::answers(&enclave).pop().unwrap();
    let key = STANDARD
        .decode(made["public_key"].as_str().unwrap())
        .unwrap();
    let mut control = control.send_body(&challenge_body(1, b"nonce", &[])).await;
    let document = answer(&mut control, 1).await;
    assert_the_agents_is_the_nonce(&enclave.prepared, &document, b"nonce", Some(&key));
}

#[tokio::test]
async fn challenge_that_is_none_gets_no_document() {
    let (mut enclave, mut control) = Image::new(&["wait"]).boot().await;
    let text = |text: &str| [&[0x60 | u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    for body in [
        // Version 1's challenge without a nonce.
        b"\x82\x01\x81\x07".to_vec(),
        b"\x82\x01\x82\x07\xf6".to_vec(),
        b"\x82\x01\x84\x07\xf6\x44data\x43key".to_vec(),
        // A nonce that is too long, in pieces, or no bytes.
        challenge_body(7, &[0; 513], &[]),
        challenge_body(7, &vec![0; 60_000], &[]),
        b"\x82\x01\x82\x07\x5f\x42no\x43nce\xff".to_vec(),
        [b"\x82\x01\x82\x07".as_slice(), &text("nonce")].concat(),
        // Fields by name, other messages, and the init's own.
        [
            b"\x82\x01\xa2".as_slice(),
            &text("id"),
            &[7],
            &text("nonce"),
            b"\x45nonce",
        ]
        .concat(),
        b"\x82\x03\x82\x07\x45nonce".to_vec(),
        b"\x82\x08\x84\x00\x60\x60\x45nonce".to_vec(),
    ] {
        let mut closed = control.send_body(&body).await;
        let next = enclave.control().await;
        let rest = async {
            while let Some(message) = closed.receive().await {
                assert!(!matches!(message, FromInit::Document { .. }), "{body:?}");
            }
        };
        tokio::time::timeout(LIMIT, rest).await.unwrap();
        control = next;
    }
    // An empty nonce is refused in words, and the connection goes on.
    let reason = challenge(&mut control, 8, b"").await.unwrap_err();
    assert!(reason.contains("the nonce is empty"), "{reason}");
    let document = challenge(&mut control, 9, b"nonce").await.unwrap();
    assert_the_agents_is_the_nonce(&enclave.prepared, &document, b"nonce", None);
}

#[tokio::test]
async fn challenges_at_once_are_all_answered_or_refused() {
    let (_enclave, mut control) = Image::new(&["wait"]).boot().await;
    let mut open: std::collections::BTreeSet<u64> = (0..200).collect();
    for &id in &open {
        control
            .send(FromAgent::Challenge {
                id,
                nonce: Bytes::new([7; 32]).unwrap(),
            })
            .await;
    }
    let mut documents = 0;
    while !open.is_empty() {
        let id = message(&mut control, |message| match message {
            FromInit::Document { id, .. } => {
                documents += 1;
                Some(*id)
            }
            FromInit::ChallengeFailed { id, reason } => {
                assert!(reason.contains("too many requests"), "{reason}");
                Some(*id)
            }
            _ => None,
        })
        .await;
        assert!(open.remove(&id), "{id} is answered twice");
    }
    assert!(documents >= 16, "only {documents} documents");
}

#[tokio::test]
async fn challenge_that_is_too_long_ends_the_connection_and_nothing_else() {
    let (mut enclave, control) = Image::new(&["wait"]).boot().await;
    // Challenge 1 with 513 bytes of nonce: [1, [1, nonce]].
    let mut body = vec![0x82, 0x01, 0x82, 0x01, 0x59, 0x02, 0x01];
    body.extend([0; 513]);
    let mut first = control.send_body(&body).await;
    let mut again = enclave.control().await;
    let closed = async { while first.receive().await.is_some() {} };
    tokio::time::timeout(LIMIT, closed).await.unwrap();
    let line = enclave
        .line(LogStream::System, "the connection to the agent ended")
        .await;
    assert!(line.contains("513 bytes where at most 512"), "{line}");
    challenge(&mut again, 2, b"nonce").await.unwrap();
    assert_eq!(enclave.lines(LogStream::Application), [""; 0]);
}

#[tokio::test]
async fn challenge_alone_fails_with_an_nsm_that_fails_later() {
    let (enclave, mut control) = Image::new(&["wait"]).boot().await;
    challenge(&mut control, 1, b"nonce").await.unwrap();
    enclave.prepared.nsm.abort();
    let reason = challenge(&mut control, 2, b"nonce").await.unwrap_err();
    assert!(reason.contains("software NSM's socket failed"), "{reason}");
    challenge(&mut control, 3, b"nonce").await.unwrap_err();
}

#[tokio::test]
async fn runtime_config_is_measured_locked_and_handed_over() {
    for config in [
        b"".as_slice(),
        b"{\"table\": \"payments\"}",
        "x".repeat(32 * 1024).as_bytes(),
    ] {
        let image = Image::new(&["show /run/enclave/runtime-config", "wait"])
            .agent(|agent| agent.runtime_config = config.to_vec());
        let (enclave, _control) = image.boot().await;
        let text = format!("{:?}", String::from_utf8_lossy(config));
        enclave.said(&text).await;
        let path = enclave.folder().join("nsm");
        let (value, refused) = tokio::task::spawn_blocking(move || {
            let mut nsm = Nsm::socket(&path).unwrap();
            (nsm.describe_pcr(16).unwrap(), nsm.extend_pcr(16, b"more"))
        })
        .await
        .unwrap();
        assert_eq!(value, (measured(config), true));
        refused.unwrap_err();
    }
}
