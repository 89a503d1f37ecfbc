//! Secrets that are sealed to a running enclave: by `attest seal`, through the agent and a
//! relay that may be hostile, to the workload.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use enclave_tests::{Agent, Hypervisor, Workload};
use serde_json::Value;
use tokio::process::Command;

use crate::PROGRAMS;

const SENDER: &str = include_str!("../../../crates/sealed-secret/tests/vectors/sender.key");
const SENDER_PUBLIC: &str = include_str!("../../../crates/sealed-secret/tests/vectors/sender.pem");
const OTHER: &str = include_str!("../../../crates/sealed-secret/tests/vectors/other.key");
/// One for the start, and one that the workload asks for. The names are of one length, so
/// that one can be put in place of the other.
const TABLES: &str = r#"
[[secrets]]
name = "file-secret"
sealed = { sender = "operator.pem" }
file = "/run/secrets/file-secret"

[[secrets]]
name = "late-secret"
sealed = { sender = "operator.pem" }
file = "/run/secrets/late-secret"
wait = "1ms"
on_failure = "continue"

[[secrets]]
name = "api-secret"
sealed = { sender = "operator.pem" }
api = true
"#;

fn image() -> Workload {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("sealed");
    let build = || {
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("operator.pem"), SENDER_PUBLIC)?;
        Workload::build_with(&PROGRAMS, &folder, TABLES)
    };
    Workload::shared(&PROGRAMS, &folder, "test-workload", build).unwrap()
}

/// Whoever has a secret, on the enclave's machine.
struct Sender {
    /// The agent's, for keys and what is sealed.
    folder: PathBuf,
    root: PathBuf,
}

impl Sender {
    /// Waits until the enclave waits for the secret, as the agent says.
    async fn when_awaited(agent: &mut Agent, image: &Workload) -> Self {
        let is_start = |event: &Value| event["event"] == "starting";
        let starting = agent.event(is_start).await.unwrap();
        let expected = "waits for the sealed secret `file-secret`: seal it to this boot";
        let is_told = |event: &Value| {
            let detail = event["detail"].as_str().unwrap_or_default();
            event["event"] == "health" && detail.starts_with(expected)
        };
        agent.event(is_told).await.unwrap();
        let status = agent.status().await.unwrap();
        assert_eq!(status["state"], "booting");
        let detail = status["health"]["detail"].as_str().unwrap();
        assert!(detail.starts_with(expected), "{detail}");
        let folder = agent.folder().to_owned();
        let measurements = serde_json::to_string(&image.measurements).unwrap();
        for (file, text) in [
            ("sender.key", SENDER),
            ("other.key", OTHER),
            ("measurements.json", &measurements),
        ] {
            fs::write(folder.join(file), text).unwrap();
        }
        let root = starting["nsm_root"].as_str().unwrap().into();
        Self { folder, root }
    }

    /// `attest seal` of a value, with further arguments.
    async fn seal(&self, name: &str, value: &str, key: &str, arguments: &[&str]) -> Output {
        let path = |name: &str| self.folder.join(name);
        fs::write(path("value"), value).unwrap();
        Command::new(PROGRAMS.path("attest"))
            .arg("seal")
            .arg(path("value"))
            .args(["--name", name, "--to"])
            .arg(format!(
                "unix:{}",
                path("state/workload/control.sock").display()
            ))
            .arg("--sender")
            .arg(path(key))
            .arg("--root")
            .arg(&self.root)
            .arg("--measurements")
            .arg(path("measurements.json"))
            .args(arguments)
            .kill_on_drop(true)
            .output()
            .await
            .unwrap()
    }

    /// Seals with the sender's key, and hands it in.
    async fn send(&self, name: &str, value: &str) {
        let output = self.seal(name, value, "sender.key", &["--send"]).await;
        assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    }
}

/// What `secret put` says of bytes that are refused.
async fn refusal(agent: &Agent, sealed: &[u8]) -> String {
    let file = agent.folder().join("refused");
    fs::write(&file, sealed).unwrap();
    let arguments = ["put", file.to_str().unwrap()];
    let put = agent.command("secret", &arguments).await;
    format!("{:#}", put.unwrap_err())
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn sealed_secrets_start_the_workload_and_nobody_else_can_send_them() {
    let image = image();
    let start = || Agent::start(&PROGRAMS, &image, Hypervisor::Sim, "secrets", &[]).unwrap();
    let mut agent = start();
    let sender = Sender::when_awaited(&mut agent, &image).await;

    // Another sender, and a name that is not declared.
    let refused = sender.seal("file-secret", "bad", "other.key", &["--send"]);
    let refused = refused.await;
    assert_eq!(refused.status.code(), Some(3));
    assert!(
        errors(&refused).contains("does not open here"),
        "{refused:?}"
    );
    let refused = sender.seal("unknown", "bad", "sender.key", &["--send"]);
    let refused = refused.await;
    assert_eq!(refused.status.code(), Some(3));
    let known = "it has api-secret, file-secret, late-secret";
    assert!(errors(&refused).contains(known), "{refused:?}");
    // A relay that gives one secret for another.
    let kept = agent.folder().join("sealed");
    let output = ["--output", kept.to_str().unwrap()];
    let output = sender.seal("late-secret", "late", "sender.key", &output);
    let output = output.await;
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    let sealed = fs::read(&kept).unwrap();
    let name = b"late-secret";
    let place = sealed.windows(name.len()).position(|part| part == name);
    let mut swapped = sealed.clone();
    swapped[place.unwrap()..][..name.len()].copy_from_slice(b"file-secret");
    let reason = refusal(&agent, &swapped).await;
    assert!(reason.contains("does not open here"), "{reason}");

    // The sender's own reach the workload.
    sender.send("file-secret", "for the start").await;
    let put = ["put", kept.to_str().unwrap()];
    agent.command("secret", &put).await.unwrap();
    agent.line("file for the start").await.unwrap();
    agent.ready().await.unwrap();
    sender.send("api-secret", "for the API").await;
    agent.line("api for the API").await.unwrap();
    agent.stopped().await.unwrap();

    // The next boot needs them again, and takes none of this one's.
    let mut agent = start();
    Sender::when_awaited(&mut agent, &image).await;
    let reason = refusal(&agent, &sealed).await;
    assert!(reason.contains("does not open here"), "{reason}");
    // While it waits, it stops as it is told.
    let ended = agent.stopped().await.unwrap();
    assert_eq!(ended.code, Some(0));
    assert!(ended.records("application").next().is_none());
}
