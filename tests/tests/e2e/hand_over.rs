//! A seed that an enclave of one release hands to one of the next, over their agents.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use enclave_tests::{Agent, Hypervisor, Signing, Workload};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P384_SHA384};
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::PROGRAMS;

/// The key and the certificate of the family's signer.
fn signing(folder: &Path, name: &str) -> Signing {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    let certificate = CertificateParams::default().self_signed(&key).unwrap();
    let path = |end: &str| folder.join(format!("{name}.{end}"));
    fs::write(path("key"), key.serialize_pem()).unwrap();
    fs::write(path("pem"), certificate.pem()).unwrap();
    Signing {
        key: path("key"),
        certificate: path("pem"),
    }
}

/// The image of a generation of the family, and of the only seed that it accepts.
fn image(
    folder: &Path,
    signing: &Signing,
    generation: u8,
    fingerprint: Option<&str>,
) -> anyhow::Result<Workload> {
    let certificate = signing.certificate.display();
    let pin = fingerprint.map_or_else(String::new, |pin| format!(", fingerprint = \"{pin}\""));
    let tables = format!(
        "[keys]\nfamily = \"payments\"\nsiblings = {{ signer = \"{certificate}\", generation = {generation}{pin} }}\n"
    );
    let folder = folder.join(format!("{generation}"));
    Workload::build_signed(&PROGRAMS, &folder, &tables, signing)
}

/// A step at one agent, with what the other one has answered.
async fn step(agent: &Agent, name: &str, input: &[u8]) -> Result<Vec<u8>, String> {
    let mut child = Command::new(PROGRAMS.path("parent-agent"))
        .args(["keys", name, "--state-dir"])
        .arg(agent.folder().join("state"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input).await.unwrap();
    drop(stdin);
    let output = child.wait_with_output().await.unwrap();
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

async fn hand_over(giver: &Agent, receiver: &Agent) -> Result<String, String> {
    let challenge = step(giver, "challenge", &[]).await?;
    let request = step(receiver, "request", &challenge).await?;
    let gift = step(giver, "give", &request).await?;
    let fingerprint = step(receiver, "take", &gift).await?;
    Ok(String::from_utf8(fingerprint).unwrap())
}

/// Waits until the enclave waits for its seed, as the agent says.
async fn waits(agent: &mut Agent) {
    let is_told = |event: &Value| {
        let detail = event["detail"].as_str().unwrap_or_default();
        event["event"] == "health"
            && detail.starts_with("waits for the seed of the family `payments`")
    };
    agent.event(is_told).await.unwrap();
}

/// What the workload prints of its key.
async fn key(agent: &mut Agent) -> String {
    let line = |event: &Value| {
        let text = event["text"].as_str().unwrap_or_default();
        text.starts_with("key ")
    };
    let event = agent.event(line).await.unwrap();
    event["text"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn hand_over_gives_the_next_release_the_keys_of_the_one_before() {
    let folder = tempfile::tempdir().unwrap();
    let signing = signing(folder.path(), "signer");
    let first = image(folder.path(), &signing, 1, None).unwrap();
    // One platform: its root signs both modules' documents.
    let root = folder.path().join("nsm");
    fs::create_dir(&root).unwrap();
    let root = ["--software-nsm-root", root.to_str().unwrap()];
    let start = |image| Agent::start(&PROGRAMS, image, Hypervisor::Sim, "keys", &root).unwrap();

    let mut giver = start(&first);
    waits(&mut giver).await;
    let fingerprint = step(&giver, "create", &[]).await.unwrap();
    let fingerprint = String::from_utf8(fingerprint).unwrap();
    // The next release is built for the seed that the family has by now.
    let unpinned = image(folder.path(), &signing, 2, None).unwrap_err();
    let reason = "of generation 2 has no `fingerprint`";
    assert!(unpinned.to_string().contains(reason), "{unpinned}");
    let second = image(folder.path(), &signing, 2, Some(fingerprint.trim())).unwrap();
    assert_ne!(first.measurements.pcr0, second.measurements.pcr0);
    let mut receiver = start(&second);
    waits(&mut receiver).await;
    assert_eq!(hand_over(&giver, &receiver).await.unwrap(), fingerprint);
    let first_key = key(&mut giver).await;
    assert_eq!(key(&mut receiver).await, first_key);
    assert_eq!(first_key.len(), "key ".len() + 64);

    // Nothing goes back.
    let mut older = start(&first);
    waits(&mut older).await;
    let refused = hand_over(&receiver, &older).await.unwrap_err();
    assert!(refused.contains("of a lower generation"), "{refused}");
    older.stopped().await.unwrap();
    giver.stopped().await.unwrap();
    receiver.stopped().await.unwrap();
}
