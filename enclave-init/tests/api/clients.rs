//! The generated clients of `examples/clients`, in their languages: the example of each is run
//! in the workload's network, and over the socket.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA384, digest};
use serde_json::json;
use software_nsm::TestRoot;

use crate::enclave::{Enclave, MEASUREMENTS, said};
use crate::sealed_secrets::{seal_and_put, secret};

const CONFIGURATION: &[u8] = b"{\"tenant\": 7}";

fn folder(language: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    root.join("examples/clients").join(language)
}

#[allow(clippy::print_stderr, reason = "why a test shows nothing")]
fn tool(variable: &str) -> Option<OsString> {
    let tool = std::env::var_os(variable);
    if tool.is_none() {
        eprintln!("{variable} is not set: `cargo xtask test` sets it");
    }
    tool
}

/// An enclave with all that the example uses.
async fn enclave() -> Enclave {
    let root = TestRoot::generate().unwrap();
    let policy = attestation::Policy::builder()
        .measurements(MEASUREMENTS)
        .build()
        .unwrap();
    let peers = json!([{"name": "sibling", "policy": policy.to_json().unwrap()}]);
    let token = secret(
        "token",
        None,
        &json!({"api": true, "on_failure": "continue"}),
    );
    let image = crate::enclave::Image::new(&["say here", "wait"])
        .signed_by(&root)
        .attestation("peers", peers)
        .attestation("open_registers", json!([17, 18]))
        .with("/secrets", json!([token]))
        .with("/workload/health", json!({"notify": true}))
        .agent(|behaviour| behaviour.runtime_config = CONFIGURATION.to_vec());
    let (enclave, mut control) = image.boot().await;
    enclave.said("here").await;
    seal_and_put(&enclave, &mut control, "token", b"hush-hunter2")
        .await
        .unwrap();
    enclave
}

/// Runs the example over both transports: a program and what it is given before the register.
async fn example_works(program: &OsStr, arguments: &[OsString]) {
    let enclave = enclave().await;
    let socket = format!(
        "unix:/proc/{}/root/run/enclave/api.sock",
        enclave.workload()
    );
    for (register, address) in [("17", None), ("18", Some(socket))] {
        let mut command = enclave.beside(program, "ENCLAVE_API=");
        if let Some(address) = &address {
            command.env("ENCLAVE_API", address);
        }
        command.args(arguments).arg(register);
        let (lines, errors) = said(&mut command).await;
        let model = digest(&SHA384, b"model");
        let register = digest(&SHA384, &[&[0; 48][..], model.as_ref()].concat());
        let expected = [
            "measurements: test, self-check passed".to_owned(),
            format!("runtime configuration: {} bytes", CONFIGURATION.len()),
            "document: accepted, with the key b\"a key of the workload's\"".to_owned(),
            "signature: ecdsa-with-SHA384, by a key of 120 bytes".to_owned(),
            "secret: 12 bytes".to_owned(),
            format!("register: {}", hex::encode(register)),
            "extended again: status 409, register-locked".to_owned(),
            "restarts: 0".to_owned(),
        ];
        let found: Vec<_> = lines.lines().collect();
        assert_eq!(found, expected, "{address:?}: {errors}");
    }
    let healthy = enclave.line(link::logs::LogStream::Health, "healthy");
    assert_eq!(healthy.await, "healthy");
}

#[tokio::test]
async fn clients_python_example_works() {
    let Some(python) = tool("ENCLAVE_TEST_PYTHON") else {
        return;
    };
    let example = folder("python").join("example.py");
    example_works(&python, &["-B".into(), example.into()]).await;
}

#[tokio::test]
async fn clients_node_example_works() {
    let Some(node) = tool("ENCLAVE_TEST_NODE") else {
        return;
    };
    let example = folder("node").join("example.mjs");
    example_works(&node, &[example.into()]).await;
}

#[tokio::test]
async fn clients_go_example_works() {
    let Some(go) = tool("ENCLAVE_TEST_GO") else {
        return;
    };
    let place = tempfile::tempdir().unwrap();
    let go = |arguments: &[&str]| {
        let mut command = tokio::process::Command::new(&go);
        command
            .args(arguments)
            .current_dir(folder("go"))
            // Kept: the standard library takes ten seconds.
            .env("GOCACHE", concat!(env!("CARGO_TARGET_TMPDIR"), "/go-cache"))
            .env("GOFLAGS", "-mod=readonly")
            // Nothing is fetched: there are no dependencies.
            .env("GOPROXY", "off")
            .env("CGO_ENABLED", "0");
        command
    };
    let program = place.path().join("example");
    let building = ["build", "-o", program.to_str().unwrap(), "./example"];
    for arguments in [&["vet", "./..."][..], &building] {
        let output = go(arguments).output().await.unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {errors}");
    }
    example_works(program.as_os_str(), &[]).await;
}
