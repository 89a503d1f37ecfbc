//! `--public-key-out`: the key of a document that is accepted, and of no other.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use measurements::{Measurements, Pcr};
use software_nsm::{Identity, SoftwareNsm, TestRoot, serve};
use tokio::net::UnixListener;

/// Documents that AWS signed, with a key and without.
const WITH_KEY: &str = "3a4a0301e6aa2839";
const WITHOUT_KEY: &str = "8ff485d8a838b3ca";

fn corpus() -> PathBuf {
    PathBuf::from("../attestation/corpus/aws")
}

/// What the corpus says of the document.
fn public_key(document: &str) -> Option<Vec<u8>> {
    let case = corpus().join(format!("{document}-at-its-own-time.json"));
    let case: serde_json::Value = serde_json::from_slice(&std::fs::read(case).unwrap()).unwrap();
    let key = case["claims"]["public_key"].as_str()?;
    Some(hex::decode(key).unwrap())
}

fn verify(document: &str, time: &str, key_file: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_attest"))
        .arg("verify")
        .arg(corpus().join(format!("{document}.cbor")))
        .args(["--allow-any-image", "--time", time, "--public-key-out"])
        .arg(key_file)
        .output()
        .unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

#[test]
fn public_key_out_writes_the_key_of_an_accepted_document() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    let output = verify(WITH_KEY, "document", &file);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(std::fs::read(&file).unwrap(), public_key(WITH_KEY).unwrap());
    let output = verify(WITH_KEY, "document", &folder.path().join("no/key"));
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("cannot write"), "{output:?}");
}

#[test]
fn public_key_out_leaves_the_file_alone_if_the_document_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    std::fs::write(&file, "before").unwrap();
    let output = verify(WITH_KEY, "now", &file);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(std::fs::read(&file).unwrap(), b"before");
}

#[test]
fn public_key_out_refuses_a_document_without_a_key() {
    assert_eq!(public_key(WITHOUT_KEY), None);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    let output = verify(WITHOUT_KEY, "document", &file);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("has no public_key"), "{output:?}");
    assert!(!file.exists());
}

#[tokio::test]
async fn public_key_out_belongs_to_fetch_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let root = TestRoot::generate().unwrap();
    std::fs::write(folder.path().join("root.pem"), root.certificate_pem()).unwrap();
    let identity = Identity {
        instance_id: "i-0123456789abcdef0".to_owned(),
        enclave_id: "enc0123456789abcdef".to_owned(),
        measurements: Some(Measurements {
            pcr0: Pcr::new([1; 48]),
            pcr1: Pcr::new([2; 48]),
            pcr2: Pcr::new([3; 48]),
            pcr8: None,
        }),
    };
    let module = SoftwareNsm::new(identity, root).unwrap();
    let listener = UnixListener::bind(folder.path().join("nsm")).unwrap();
    tokio::spawn(serve(listener, module));
    // A module that is asked for nothing but a nonce gives no key.
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_attest"))
        .args([
            "fetch",
            "nsm:nsm",
            "--root",
            "root.pem",
            "--allow-any-image",
        ])
        .args(["--public-key-out", "key"])
        .current_dir(folder.path())
        .output()
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("has no public_key"), "{output:?}");
    assert!(!folder.path().join("key").exists());
}
