//! Commands beside the workload: what they are, and what a workload can do to them.

use std::time::{Duration, Instant};

use link::control::{EndCause, FromAgent, FromInit, HealthState};
use link::logs::LogStream;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::agent::Control;
use crate::enclave::{Image, ending, message, processes, until};

/// Why the workload is not ready.
async fn reason(control: &mut Control) -> String {
    message(control, |message| match message {
        FromInit::Health {
            state: HealthState::Starting,
            detail,
        } if !detail.is_empty() => Some(detail.to_string()),
        _ => None,
    })
    .await
}

async fn ready(control: &mut Control) {
    message(control, |message| match message {
        FromInit::Ready { .. } => Some(()),
        FromInit::Health { detail, .. } if detail.contains("it was") => panic!("{detail}"),
        _ => None,
    })
    .await;
}

fn probe(instruction: &str, more: &Value) -> Value {
    let mut health = json!({"command": ["/bin/workload", instruction], "interval": "50ms"});
    let table = health.as_object_mut().unwrap();
    table.extend(more.as_object().unwrap().clone());
    health
}

#[tokio::test]
async fn companion_is_in_the_workloads_container() {
    let instructions = ["note /tmp/noted", "say noted", "wait"];
    for (uid, confinement) in [
        (0, json!({})),
        (1000, json!({})),
        (0, json!({"profile": "container"})),
        (
            1000,
            json!({"capabilities": ["CHOWN"], "read_only_root": true}),
        ),
    ] {
        for has_reaper in [false, true] {
            let image = Image::new(&instructions)
                .file("srv/kept", "")
                .with("/workload/working_directory", json!("/srv"))
                .with(
                    "/workload/env",
                    json!({"A": "b=c", "EMPTY": "", "PATH": "/bin"}),
                )
                .with("/workload/user", json!({"uid": uid, "gid": uid}))
                .with("/workload/init", json!(has_reaper))
                .with("/confinement", confinement.clone())
                .with("/workload/health", probe("compare /tmp/noted", &json!({})));
            let (enclave, mut control) = image.boot().await;
            enclave.said("noted").await;
            ready(&mut control).await;
        }
    }
}

#[tokio::test]
async fn companion_that_does_not_end_is_killed_with_what_it_started() {
    // The child keeps the output open, too.
    let health = json!({
        "command": ["/bin/workload", "leave wait", "wait"],
        "interval": "50ms",
        "timeout": "200ms",
    });
    let image = Image::new(&["handle SIGTERM"]).with("/workload/health", health);
    let (mut enclave, mut control) = image.boot().await;
    let found = reason(&mut control).await;
    assert!(
        found.starts_with("it did not end within 200ms and was killed: left "),
        "{found}"
    );
    // Under `sim` the child stays until the workload ends; the command itself does not.
    sleep(Duration::from_secs(2)).await;
    let waiting = |pid: &nix::unistd::Pid| {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&command).contains("leave wait")
    };
    let commands = processes(enclave.folder())
        .iter()
        .filter(|pid| waiting(pid))
        .count();
    assert!(commands <= 1, "{commands}");
    control.send(FromAgent::Shutdown { grace_ms: None }).await;
    assert_eq!(ending(&mut control).await.0, EndCause::Shutdown);
    enclave.ended().await;
}

#[tokio::test]
async fn companion_is_read_no_further_than_its_bound() {
    let flood = ["/bin/workload", "flood 20000", "exit 4"];
    let health = json!({"command": flood, "interval": "50ms", "timeout": "20s"});
    let image = Image::new(&["wait"]).with("/workload/health", health);
    let (_enclave, mut control) = image.boot().await;
    let found = reason(&mut control).await;
    let line = "0".repeat(99);
    assert_eq!(found, format!("it ended with exit code 4: {line}"));
    // What is cut off may be what makes a secret one.
    for (size, told) in [(4000, ": [secret]"), (5000, "")] {
        let redact = json!([{"pattern": "s{2000,}\n", "with": "[secret]"}]);
        let health = json!({"command": ["/bin/workload", "print /secret", "exit 4"]});
        let image = Image::new(&["wait"])
            .file("secret", "s".repeat(size) + "\n")
            .with("/logs", json!({"release": "always", "redact": redact}))
            .with("/workload/health", health);
        let (_enclave, mut control) = image.boot().await;
        let found = reason(&mut control).await;
        assert_eq!(found, format!("it ended with exit code 4{told}"));
    }
}

#[tokio::test]
async fn companion_ends_with_the_workload() {
    // The probe runs when the workload ends, and the next start's does.
    let health = json!({"command": ["/bin/workload", "wait"], "timeout": "1h", "interval": "10ms"});
    let image = Image::new(&["first until /end", "first exit 0", "say again", "wait"])
        .with("/workload/health", health)
        .restarted(3);
    let (mut enclave, mut control) = image.boot().await;
    let probes = || {
        let mut probes = processes(enclave.folder());
        probes.retain(|pid| {
            let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            command == b"/bin/workload\0wait\0"
        });
        probes
    };
    until(|| !probes().is_empty()).await;
    let before = probes();
    std::fs::write(enclave.path("end"), "").unwrap();
    enclave.said("again").await;
    until(|| probes().iter().any(|pid| !before.contains(pid))).await;
    assert!(probes().iter().all(|pid| !before.contains(pid)));
    control.send(FromAgent::Shutdown { grace_ms: None }).await;
    assert_eq!(ending(&mut control).await.0, EndCause::Shutdown);
    enclave.ended().await;
}

/// A workload that is root stops, traces and reads whatever comes into its namespace. It finds
/// its own environment there, and nothing of the init's; the init does not wait for it.
#[tokio::test]
async fn companion_gives_a_hostile_workload_nothing_of_the_inits() {
    for confinement in [
        json!({"profile": "container", "allow": ["ptrace"]}),
        json!({"profile": "container", "allow": ["ptrace", "user-namespaces"]}),
    ] {
        let image = Image::new(&["stalk bait 7d1f canary 5c0e"])
            .with("/workload/env", json!({"BAIT": "bait-7d1f"}))
            .with("/confinement", confinement)
            // In the init's memory, and in nothing that the workload is given.
            .with(
                "/logs",
                json!({
                    "release": "always",
                    "redact": [{"pattern": "canary-5c0e", "with": "redacted"}],
                }),
            )
            .with(
                "/workload/health",
                probe("wait", &json!({"timeout": "150ms"})),
            );
        let (mut enclave, mut control) = image.boot().await;
        enclave.said("stopped").await;
        enclave.said("found bait").await;
        let found = reason(&mut control).await;
        assert!(found.starts_with("it did not end within 150ms"), "{found}");
        // Some more of them, each at another moment of its start.
        sleep(Duration::from_secs(6)).await;
        let lines = enclave.lines(LogStream::Application);
        assert!(lines.contains(&"traced".to_owned()), "{lines:?}");
        let of_the_init = |line: &&String| line.contains("canary") || line.contains("init's");
        assert_eq!(lines.iter().find(of_the_init), None, "{lines:?}");
        let begun = Instant::now();
        control.send(FromAgent::Shutdown { grace_ms: None }).await;
        assert_eq!(ending(&mut control).await.0, EndCause::Shutdown);
        assert!(begun.elapsed() < Duration::from_secs(15));
        enclave.ended().await;
    }
}

/// The workload's are the folders that the command is looked for in, so it can have the init's
/// own program executed, and what a process executes can be opened. It can only be read.
#[tokio::test]
async fn companion_gives_a_hostile_workload_no_program_that_it_could_change() {
    for how in ["link", "script"] {
        for uid in [0, 1000] {
            let lure = format!("lure {how} /tmp/bait");
            let health = json!({"command": ["/tmp/bait", "sim"], "interval": "10ms"});
            let image = Image::new(&[&lure])
                .with("/workload/user", json!({"uid": uid, "gid": uid}))
                .with("/workload/health", health);
            let (enclave, _control) = image.boot().await;
            enclave.said("opened the program").await;
            enclave.said("mode: ReadOnlyFilesystem").await;
            enclave.said("append: ").await;
            let lines = enclave.lines(LogStream::Application);
            assert!(!lines.contains(&"mode changed".to_owned()), "{lines:?}");
            assert!(!lines.contains(&"opened to write".to_owned()), "{lines:?}");
        }
    }
}
