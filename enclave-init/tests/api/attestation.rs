//! Challenges, and what is measured at run time.

use attestation::{Policy, Roots, Time, nsm::Nsm, verify};
use aws_lc_rs::digest::{SHA384, digest};
use eif::Pcr;
use link::Bytes;
use link::control::{FromAgent, FromInit};
use link::logs::LogStream;

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

fn accept(prepared: &Prepared, document: &[u8], policy: &Policy) {
    let roots = Roots::from_pem(prepared.root_pem.as_bytes()).unwrap();
    let verification = verify(document, &roots, policy, Time::Now);
    verification.outcome.unwrap();
}

/// What PCR16 must be.
fn measured(config: &[u8]) -> Pcr {
    Pcr::ZERO.extend(digest(&SHA384, config).as_ref())
}

#[tokio::test]
async fn a_challenge_is_answered_with_a_document_that_verifies() {
    let config = b"tenant=7\0\xff";
    let image = Image::new(&["wait"]).agent(|agent| agent.runtime_config = config.to_vec());
    let (enclave, mut control) = image.boot().await;
    for (id, nonce) in [(7, [1; 32].as_slice()), (8, &[2; 512])] {
        let document = challenge(&mut control, id, nonce).await.unwrap();
        let policy = Policy::builder()
            .measurements(MEASUREMENTS)
            .pcr(16, measured(config))
            .nonce(nonce.to_vec())
            .build()
            .unwrap();
        accept(&enclave.prepared, &document, &policy);
    }
}

#[tokio::test]
async fn many_challenges_at_once_are_all_answered_or_refused() {
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
                assert!(reason.contains("too many challenges"), "{reason}");
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
async fn a_challenge_that_is_too_long_ends_the_connection_and_nothing_else() {
    let (mut enclave, control) = Image::new(&["wait"]).boot().await;
    // Challenge 1 with 513 bytes of nonce: [1, [1, nonce]].
    let mut body = vec![0x82, 0x01, 0x82, 0x01, 0x59, 0x02, 0x01];
    body.extend([0; 513]);
    let mut first = control.send_raw(&body).await;
    let mut again = enclave.control().await;
    let closed = async {
        while first
            .receive::<FromInit>()
            .await
            .is_ok_and(|message| message.is_some())
        {}
    };
    tokio::time::timeout(LIMIT, closed).await.unwrap();
    let line = enclave
        .line(LogStream::System, "the connection to the agent ended")
        .await;
    assert!(line.contains("513 bytes where at most 512"), "{line}");
    challenge(&mut again, 2, b"nonce").await.unwrap();
    assert_eq!(enclave.lines(LogStream::Application), [""; 0]);
}

#[tokio::test]
async fn an_nsm_that_fails_later_fails_the_challenge_only() {
    let (enclave, mut control) = Image::new(&["wait"]).boot().await;
    challenge(&mut control, 1, b"nonce").await.unwrap();
    enclave.prepared.nsm.abort();
    let reason = challenge(&mut control, 2, b"nonce").await.unwrap_err();
    assert!(reason.contains("software NSM's socket failed"), "{reason}");
    challenge(&mut control, 3, b"nonce").await.unwrap_err();
}

#[tokio::test]
async fn the_runtime_configuration_is_measured_locked_and_handed_over() {
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
