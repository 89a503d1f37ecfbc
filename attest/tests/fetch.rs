//! `attest fetch`: what it prints, and its exit codes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::Output;

use measurements::{Measurements, Pcr};
use software_nsm::{Identity, SoftwareNsm, TestRoot, serve};
use tokio::net::UnixListener;
use tokio::process::Command;

const IMAGE: Measurements = Measurements {
    pcr0: Pcr::new([1; 48]),
    pcr1: Pcr::new([2; 48]),
    pcr2: Pcr::new([3; 48]),
    pcr8: None,
};

async fn attest(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_attest"))
        .arg("fetch")
        .args(arguments)
        .current_dir(folder)
        .output()
        .await
        .unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// A folder with a software NSM, its root and its image's measurements.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let root = TestRoot::generate().unwrap();
    std::fs::write(folder.path().join("root.pem"), root.certificate_pem()).unwrap();
    let measurements = serde_json::to_string(&IMAGE).unwrap();
    std::fs::write(folder.path().join("image.json"), measurements).unwrap();
    let identity = Identity {
        instance_id: "i-0123456789abcdef0".to_owned(),
        enclave_id: "enc0123456789abcdef".to_owned(),
        measurements: Some(IMAGE),
    };
    let module = SoftwareNsm::new(identity, root).unwrap();
    let listener = UnixListener::bind(folder.path().join("nsm")).unwrap();
    tokio::spawn(serve(listener, module));
    folder
}

#[tokio::test]
async fn a_live_enclave_is_verified_and_its_document_kept() {
    let folder = folder();
    let arguments = [
        "nsm:nsm",
        "--root",
        "root.pem",
        "--measurements",
        "image.json",
        "--output",
        "document.cbor",
    ];
    let output = attest(folder.path(), &arguments).await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let table = text(&output.stdout);
    assert!(table.contains("\nok       policy.nonce "), "{table}");
    assert!(
        table.ends_with("\naccepted    i-0123456789abcdef0-enc0123456789abcdef\n"),
        "{table}"
    );
    let kept = std::fs::read(folder.path().join("document.cbor")).unwrap();
    assert!(attestation::Document::parse(&kept).is_ok());
}

#[tokio::test]
async fn a_rejected_enclave_has_code_1_and_its_document_is_kept() {
    let folder = folder();
    let arguments = [
        "nsm:nsm",
        "--measurements",
        "image.json",
        "--output",
        "document.cbor",
        "--json",
    ];
    let output = attest(folder.path(), &arguments).await;
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["rejection"]["rule"], "chain.root");
    assert!(folder.path().join("document.cbor").exists());
}

#[tokio::test]
async fn usage_has_code_2_and_nobody_there_has_code_3() {
    let folder = folder();
    std::fs::write(folder.path().join("empty.pem"), "").unwrap();
    for (arguments, code, message) in [
        (vec!["nsm:nsm"], 2, "names no code"),
        (vec!["ftp://a.example"], 2, "is no endpoint"),
        (
            vec!["https://a.example", "--ca", "empty.pem", "--pcr", "0=00"],
            2,
            "0=00",
        ),
        (
            vec![
                "https://a.example",
                "--ca",
                "empty.pem",
                "--allow-any-image",
            ],
            2,
            "holds no certificate",
        ),
        (
            vec![
                "nsm:nsm",
                "--bind-tls",
                "--allow-any-image",
                "--root",
                "root.pem",
            ],
            2,
            "is not https",
        ),
        (
            vec!["nsm:nsm", "--bind-tls=nowhere", "--allow-any-image"],
            2,
            "give HOST:PORT",
        ),
        (
            vec![
                "https://a.example",
                "--bind-tls=a.example:443",
                "--allow-any-image",
            ],
            2,
            "name no other TLS server",
        ),
        (
            vec![
                "https://127.0.0.1:1",
                "--bind-tls",
                "--purpose=self-check",
                "--allow-any-image",
            ],
            2,
            "public_key",
        ),
        (
            vec!["unix:nothing", "--allow-any-image"],
            3,
            "unix:nothing cannot be reached",
        ),
    ] {
        let output = attest(folder.path(), &arguments).await;
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {error}");
        assert!(error.contains(message), "{arguments:?}: {error}");
    }
}
