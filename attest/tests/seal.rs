//! `attest seal`: to an enclave whose parent may be hostile.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::path::Path;
use std::process::Output;
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use measurements::{Measurements, Pcr};
use nsm::{Request, Response};
use sealed_secret::{Binding, Sealed, SealingKey, SenderKey};
use serde_json::Value;
use software_nsm::{Identity, SoftwareNsm, TestRoot};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::process::Command;

const SENDER: &[u8] = include_bytes!("../../crates/sealed-secret/tests/vectors/sender.key");
const MODULE_ID: &str = "i-0123456789abcdef0-enc0123456789abcdef";
const IMAGE: Measurements = Measurements {
    pcr0: Pcr::new([1; 48]),
    pcr1: Pcr::new([2; 48]),
    pcr2: Pcr::new([3; 48]),
    pcr8: None,
};

/// What the parent makes of a challenge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Parent {
    Honest,
    /// Has another nonce signed.
    OtherNonce,
    /// Gives a document for another purpose, with a key of its own, as a workload could.
    Workload,
    /// Puts its own key into the enclave's document.
    SwapsKey,
    /// Gives the document of the challenge before.
    Replays,
    /// Has the secret refused.
    Refuses,
}

/// An enclave and its agent.
struct Enclave {
    module: SoftwareNsm,
    key: SealingKey,
    parent: Parent,
    earlier: Option<Vec<u8>>,
    put: Vec<Vec<u8>>,
}

impl Enclave {
    fn document(&mut self, nonce: Vec<u8>) -> Vec<u8> {
        let spki = self.key.public_key().to_spki();
        let (nonce, user_data) = match self.parent {
            Parent::OtherNonce => (b"other".to_vec(), "enclave-purpose:sealing"),
            Parent::Workload => (nonce, "of the workload"),
            _ => (nonce, "enclave-purpose:sealing"),
        };
        let request = Request::Attestation {
            user_data: Some(user_data.as_bytes().to_vec().into()),
            nonce: Some(nonce.into()),
            public_key: Some(spki.clone().into()),
        };
        let Response::Attestation { mut document } = self.module.answer(request) else {
            panic!("no document");
        };
        let place = document.windows(spki.len()).position(|part| part == spki);
        if self.parent == Parent::SwapsKey {
            document[place.unwrap() + 20] ^= 1;
        }
        match (self.parent, self.earlier.replace(document.clone())) {
            (Parent::Replays, Some(earlier)) => earlier,
            _ => document,
        }
    }

    /// Answers as an agent does on its control socket.
    fn answer(&mut self, path: &str, body: &Value) -> (u16, Vec<u8>) {
        let bytes = |name: &str| STANDARD.decode(body[name].as_str().unwrap()).unwrap();
        match path {
            "/v1/attest" => {
                assert_eq!(body["sealing"], true);
                (200, self.document(bytes("nonce")))
            }
            "/v1/secrets" if self.parent == Parent::Refuses => (
                502,
                br#"{"error": "the enclave refused: no such secret"}"#.to_vec(),
            ),
            "/v1/secrets" => {
                self.put.push(bytes("sealed"));
                (200, b"{}".to_vec())
            }
            _ => panic!("{path}"),
        }
    }
}

async fn serve(mut stream: UnixStream, enclave: Arc<Mutex<Enclave>>) {
    let mut request = Vec::new();
    let (head, body) = loop {
        let mut part = [0; 4096];
        let length = stream.read(&mut part).await.unwrap();
        assert_ne!(length, 0, "the request breaks off");
        request.extend_from_slice(&part[..length]);
        let Some(end) = request.windows(4).position(|part| part == b"\r\n\r\n") else {
            continue;
        };
        let head = String::from_utf8(request[..end].to_vec()).unwrap();
        let lines = head.lines();
        let mut lengths = lines.filter_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("content-length").then_some(value)
        });
        let length: usize = lengths.next().unwrap().parse().unwrap();
        if request.len() == end + 4 + length {
            break (head.clone(), request.split_off(end + 4));
        }
    };
    let path = head.split(' ').nth(1).unwrap();
    let body = serde_json::from_slice(&body).unwrap();
    let (status, answer) = enclave.lock().unwrap().answer(path, &body);
    let length = answer.len();
    let head = format!("HTTP/1.1 {status} -\r\ncontent-length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&answer).await.unwrap();
}

/// A folder with an agent's socket, the module's root, a secret and the sender's key.
fn folder(parent: Parent) -> (tempfile::TempDir, Arc<Mutex<Enclave>>) {
    let folder = tempfile::tempdir().unwrap();
    let root = TestRoot::generate().unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
    write("root.pem", root.certificate_pem().as_bytes());
    write("image.json", &serde_json::to_vec(&IMAGE).unwrap());
    write("sender.key", SENDER);
    write("secret", b"hush-hunter2");
    let identity = Identity {
        instance_id: "i-0123456789abcdef0".to_owned(),
        enclave_id: "enc0123456789abcdef".to_owned(),
        measurements: Some(IMAGE),
    };
    let enclave = Arc::new(Mutex::new(Enclave {
        module: SoftwareNsm::new(identity, root).unwrap(),
        key: SealingKey::generate().unwrap(),
        parent,
        earlier: None,
        put: Vec::new(),
    }));
    let listener = UnixListener::bind(folder.path().join("agent")).unwrap();
    let served = Arc::clone(&enclave);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            serve(stream, Arc::clone(&served)).await;
        }
    });
    (folder, enclave)
}

async fn attest(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_attest"))
        .args(["seal", "secret", "--name", "password"])
        .args(["--sender", "sender.key", "--root", "root.pem"])
        .args(arguments)
        .current_dir(folder)
        .output()
        .await
        .unwrap()
}

const TO: [&str; 4] = ["--to", "unix:agent", "--measurements", "image.json"];

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// What the enclave reads of a sealed secret.
fn opened(enclave: &Mutex<Enclave>, bytes: &[u8]) -> Vec<u8> {
    let mut enclave = enclave.lock().unwrap();
    let sealed = Sealed::parse(bytes).unwrap();
    assert_eq!(sealed.name(), "password");
    let registers: Vec<_> = sealed
        .registers()
        .map(|index| {
            let request = Request::DescribePCR {
                index: index.into(),
            };
            let Response::DescribePCR { data, .. } = enclave.module.answer(request) else {
                panic!("no register {index}");
            };
            (index, Pcr::new(data.try_into().unwrap()))
        })
        .collect();
    let measured = [(0, IMAGE.pcr0), (1, IMAGE.pcr1), (2, IMAGE.pcr2)];
    assert!(registers.starts_with(&measured));
    let binding = Binding::new(MODULE_ID, registers);
    let sender = SenderKey::from_pem(SENDER).unwrap().sender();
    enclave
        .key
        .open(&sealed, &sender, &binding)
        .unwrap()
        .to_vec()
}

#[tokio::test]
async fn seal_writes_and_sends_what_the_enclave_opens() {
    let (folder, enclave) = folder(Parent::Honest);
    let arguments = [&TO[..], &["--output", "sealed", "--send", "--json"]].concat();
    let output = attest(folder.path(), &arguments).await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["accepted"], true);
    assert_eq!(report["document"]["purpose"], "sealing");
    let sealed = std::fs::read(folder.path().join("sealed")).unwrap();
    assert_eq!(enclave.lock().unwrap().put, std::slice::from_ref(&sealed));
    assert_eq!(opened(&enclave, &sealed), b"hush-hunter2");
}

#[tokio::test]
async fn seal_gives_nothing_to_a_hostile_parent() {
    for (parent, rule) in [
        (Parent::OtherNonce, "policy.nonce"),
        (Parent::Workload, "policy.purpose"),
        (Parent::SwapsKey, "document.signature"),
        (Parent::Replays, "policy.nonce"),
    ] {
        let (folder, enclave) = folder(parent);
        enclave.lock().unwrap().document(b"earlier".to_vec());
        let arguments = [&TO[..], &["--output", "sealed", "--send"]].concat();
        let output = attest(folder.path(), &arguments).await;
        assert_eq!(output.status.code(), Some(1), "{parent:?}");
        let rejected = format!("rejected    {rule}");
        let table = text(&output.stdout);
        assert!(table.contains(&rejected), "{parent:?}: {table}");
        assert!(!folder.path().join("sealed").exists());
        assert!(enclave.lock().unwrap().put.is_empty());
    }
    // Another image than the policy's.
    let (folder, enclave) = folder(Parent::Honest);
    let pcr = format!("0={}", "09".repeat(48));
    let arguments = ["--to", "unix:agent", "--send", "--pcr", &pcr];
    let output = attest(folder.path(), &arguments).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(enclave.lock().unwrap().put.is_empty());
}

#[tokio::test]
async fn seal_says_what_is_wrong() {
    let (folder, _enclave) = folder(Parent::Refuses);
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
    write("large", &vec![0; 32 * 1024 + 1]);
    write("nothing", b"");
    let send = [&TO[..], &["--send"]].concat();
    let of = |more: &[&'static str]| [&send[..], more].concat();
    for (arguments, code, message) in [
        (of(&[]), 3, "the enclave refused: no such secret"),
        (TO.to_vec(), 2, "--output"),
        (of(&["--purpose", "workload"]), 2, "purpose"),
        (
            vec!["--to", "nsm:x", "--allow-any-image", "--send"],
            2,
            "give unix:PATH",
        ),
        (
            vec!["--to", "unix:x", "--allow-any-image", "--send"],
            3,
            "cannot be reached",
        ),
        (vec!["--to", "unix:agent", "--send"], 2, "policy"),
    ] {
        let output = attest(folder.path(), &arguments).await;
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {error}");
        assert!(error.contains(message), "{arguments:?}: {error}");
        assert!(!error.contains("hush"), "{error}");
    }
    for (secret, name, sender, code, message) in [
        (
            "large",
            "password",
            "sender.key",
            3,
            "more than 32768 bytes",
        ),
        ("nothing", "password", "sender.key", 2, "0 bytes"),
        (
            "missing",
            "password",
            "sender.key",
            3,
            "cannot read missing",
        ),
        ("secret", "Password", "sender.key", 2, "lower-case"),
        (
            "secret",
            "password",
            "root.pem",
            2,
            "not an Ed25519 private key",
        ),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_attest"))
            .args(["seal", secret, "--name", name, "--sender", sender])
            .args(["--root", "root.pem"])
            .args(&send)
            .current_dir(folder.path())
            .output()
            .await
            .unwrap();
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{secret} {name}: {error}");
        assert!(error.contains(message), "{secret} {name}: {error}");
    }
}
