//! The relay of sealed secrets, and of challenges for the key that they are sealed to.

use std::process::Stdio;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use link::control::{FromAgent, FromInit, MAX_SEALED_SECRET};
use link::{Bytes, Text};
use serde_json::json;
use tokio::process::Command;

use crate::agent::{Agent, command, error_line, output};

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
