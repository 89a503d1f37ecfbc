//! The relay of what enclaves of a family hand to each other, and who asks for it.

use std::path::Path;
use std::process::{Output, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use link::control::{FromAgent, FromInit, KeyStep, MAX_HAND_OVER};
use link::{Bytes, Text};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::agent::{Agent, Init, command, error_line, output};
use crate::image::Builder;

const FINGERPRINT: &str = "e9903d08a8b5bf5439229e7432653e04";

/// `parent-agent keys STEP` for the enclaves in this folder.
fn keys(folder: &Path, step: &str) -> Command {
    let mut keys = Command::new(env!("CARGO_BIN_EXE_parent-agent"));
    keys.args(["keys", step, "--state-dir"])
        .arg(folder.join("s"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    keys
}

/// The same with standard input.
async fn given(mut keys: Command, input: Vec<u8>) -> Output {
    let mut child = keys.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // Whoever refuses it may have gone.
    let _ = stdin.write_all(&input).await;
    drop(stdin);
    child.wait_with_output().await.unwrap()
}

/// What an init is asked to do.
async fn asked(init: &mut Init) -> (u64, KeyStep) {
    match init.receive().await {
        Some(FromAgent::Keys { id, step }) => (id, step),
        other => panic!("{other:?}"),
    }
}

async fn answer(init: &mut Init, id: u64, answer: &[u8]) {
    let answer = Bytes::new(answer).unwrap();
    init.send(FromInit::KeysDone { id, answer }).await;
}

#[tokio::test]
async fn keys_are_created_and_handed_over_in_steps() {
    let mut agent = Agent::start(&[]).await;
    let mut init = agent.boot().await;
    let folder = agent.folder.path().to_owned();
    let largest = vec![7; MAX_HAND_OVER];
    let bytes = || Bytes::new(largest.clone()).unwrap();
    let challenge = Bytes::new([7; 32]).unwrap();
    for (step, input, expected, stdout) in [
        ("create", vec![], KeyStep::Create, FINGERPRINT.as_bytes()),
        ("challenge", vec![], KeyStep::Challenge, &[7; 32]),
        (
            "request",
            vec![7; 32],
            KeyStep::Request { challenge },
            &largest,
        ),
        (
            "give",
            largest.clone(),
            KeyStep::Give { request: bytes() },
            &largest,
        ),
        (
            "take",
            largest.clone(),
            KeyStep::Take { gift: bytes() },
            FINGERPRINT.as_bytes(),
        ),
    ] {
        let running = tokio::spawn(given(keys(&folder, step), input));
        let (id, step) = asked(&mut init).await;
        assert_eq!(step, expected);
        answer(&mut init, id, stdout).await;
        let done = running.await.unwrap();
        assert!(done.status.success(), "{done:?}");
        let text = stdout == FINGERPRINT.as_bytes();
        let line = [stdout, if text { b"\n" } else { b"" }].concat();
        assert_eq!(done.stdout, line);
    }

    let running = tokio::spawn(output(keys(&folder, "create")));
    let (id, _) = asked(&mut init).await;
    let reason = Text::new("this enclave has a seed already");
    init.send(FromInit::KeysRefused { id, reason }).await;
    let refused = running.await.unwrap();
    assert_eq!(refused.status.code(), Some(1));
    let expected = "`test`: the enclave refused: this enclave has a seed already";
    assert!(error_line(&refused).contains(expected), "{refused:?}");
}

#[tokio::test]
async fn keys_that_are_too_large_or_nothing_do_not_reach_the_enclave() {
    let mut agent = Agent::start(&[]).await;
    let _init = agent.boot().await;
    let folder = agent.folder.path().to_owned();
    for (input, message) in [
        (vec![], "standard input cannot be used: it is empty"),
        (vec![7; MAX_HAND_OVER + 1], "more than 12544 bytes"),
    ] {
        for step in ["request", "give", "take"] {
            let refused = given(keys(&folder, step), input.clone()).await;
            assert_eq!(refused.status.code(), Some(1));
            assert!(error_line(&refused).contains(message), "{refused:?}");
        }
    }
    let large = STANDARD.encode(vec![7; MAX_HAND_OVER + 1]);
    for (body, status) in [
        (json!({ "step": "give", "request": large }), 400),
        (
            json!({ "step": "take", "gift": "A".repeat(64 * 1024) }),
            413,
        ),
        (json!({ "step": "take", "gift": "~" }), 400),
        (json!({ "step": "take" }), 400),
        (json!({ "step": "steal" }), 400),
        (json!({}), 400),
    ] {
        let body = body.to_string();
        let (code, _) = agent.request("POST", "/v1/keys", &body).await;
        assert_eq!(code, status);
    }
}

/// An enclave of this name, and what speaks for its init.
async fn run(folder: &Path, name: &str) -> (Agent, Init) {
    let own = folder.join(name);
    std::fs::create_dir(&own).unwrap();
    let mut command = command(folder, "run");
    command.arg(Builder::new(&[], &[]).write(&own));
    let directory = folder.join("s").join(name);
    let own = tempfile::tempdir().unwrap();
    let mut agent = Agent::spawn_as(own, directory, command, &["--name", name]);
    agent.until_init_waits().await;
    let init = agent.boot().await;
    (agent, init)
}

#[tokio::test]
async fn keys_are_handed_over_between_two_enclaves_of_a_host() {
    let folder = tempfile::tempdir().unwrap();
    let (_giver, mut giver) = run(folder.path(), "one").await;
    let (_receiver, mut receiver) = run(folder.path(), "two").await;
    for is_taken in [false, true] {
        let mut keys = keys(folder.path(), "hand-over");
        keys.args(["--from", "one", "--to", "two"]);
        let running = tokio::spawn(output(keys));
        let (id, step) = asked(&mut giver).await;
        assert_eq!(step, KeyStep::Challenge);
        answer(&mut giver, id, b"challenge").await;
        let (id, step) = asked(&mut receiver).await;
        let challenge = Bytes::new(*b"challenge").unwrap();
        assert_eq!(step, KeyStep::Request { challenge });
        answer(&mut receiver, id, b"request").await;
        let (id, step) = asked(&mut giver).await;
        let request = Bytes::new(*b"request").unwrap();
        assert_eq!(step, KeyStep::Give { request });
        answer(&mut giver, id, b"gift").await;
        let (id, step) = asked(&mut receiver).await;
        let gift = Bytes::new(*b"gift").unwrap();
        assert_eq!(step, KeyStep::Take { gift });
        if is_taken {
            answer(&mut receiver, id, FINGERPRINT.as_bytes()).await;
            let done = running.await.unwrap();
            assert!(done.status.success(), "{done:?}");
            assert_eq!(done.stdout, format!("{FINGERPRINT}\n").into_bytes());
        } else {
            let reason = Text::new("it is another seed");
            receiver.send(FromInit::KeysRefused { id, reason }).await;
            let refused = running.await.unwrap();
            assert_eq!(refused.status.code(), Some(1));
            let expected = "`two`: the enclave refused: it is another seed";
            assert!(error_line(&refused).contains(expected), "{refused:?}");
        }
    }
}
