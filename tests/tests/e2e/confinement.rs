//! The workload's confinement where the kernel matters: in QEMU.

use enclave_tests::{Agent, Hypervisor};

use crate::{PROGRAMS, image_of, start};

/// An enclave whose number of processes runs out before its memory.
const BOUNDED: &str = r#"
[enclave]
name = "bounded"
image = "oci:image"
memory_mib = 256

[network]
ingress = [{ port = 8080, to = 8080 }]

[confinement]
pids = 200

[workload]
entrypoint = ["/app/test-workload", "as", "bomb"]
"#;

fn boot(role: &str) -> Agent {
    start(Hypervisor::Qemu, role, &[])
}

/// The enclave still answers: its log leaves, and so does a document.
async fn answers(agent: &mut Agent) {
    agent.line("listening").await.unwrap();
    let attested = agent.command("attest", &["--nonce", "c0ffee"]).await;
    assert!(!attested.unwrap().is_empty());
}

/// A line of the workload that begins and ends so.
async fn line(agent: &mut Agent, start: &str, end: &str) {
    let said = agent.event(|event| {
        let text = event["text"].as_str().unwrap_or_default();
        event["stream"] == "application" && text.starts_with(start) && text.ends_with(end)
    });
    said.await.unwrap();
}

/// What the init has said is wrong.
async fn error(agent: &mut Agent, wanted: &str) {
    let said = agent.event(|event| {
        let text = event["text"].as_str().unwrap_or_default();
        event["stream"] == "errors" && text.contains(wanted)
    });
    said.await.unwrap();
}

#[tokio::test]
async fn confinement_refuses_every_way_out() {
    let mut agent = boot("confined");
    for line in [
        "vsock: EAFNOSUPPORT",
        "inet: done",
        "groups: [101, 1000]",
        "device: EPERM",
        "mount: EPERM",
        "unmount: EPERM",
        "trace: EPERM",
        // It is PID 1 of its own namespace, and alone there.
        "process 1, parent 0",
        "processes: 1",
        "/dev/nsm: ENOENT",
        "/dev/mem: ENOENT",
        "/proc/kcore: ENOENT",
        "/dev/stdout can be opened: true",
        "/dev/stderr can be opened: true",
        "devices: fd full null ptmx pts random shm stderr stdin stdout tty urandom zero",
        "memory.max is limited: true",
        "memory.max can be changed: false",
        "pids.max is limited: true",
        "pids.max can be changed: false",
        "root has a size: true",
        "root has no devices: true",
        "tried",
    ] {
        agent.line(line).await.unwrap();
    }
    let ended = agent.stopped().await.unwrap();
    assert_eq!(ended.end()["cause"], "stopped");
}

#[tokio::test]
async fn confinement_ends_who_uses_all_memory_and_nobody_else() {
    let mut agent = boot("hog");
    agent
        .line("the eater ended with signal Some(9)")
        .await
        .unwrap();
    answers(&mut agent).await;
    error(&mut agent, "out of memory: the kernel killed 1 ").await;
}

#[tokio::test]
async fn confinement_ends_a_fork_bomb() {
    let image = image_of("bounded", BOUNDED);
    let mut agent = Agent::start(&PROGRAMS, &image, Hypervisor::Qemu, "", &[]).unwrap();
    line(&mut agent, "refused after ", ": WouldBlock").await;
    answers(&mut agent).await;
    error(&mut agent, "too many processes: ").await;
    assert_eq!(agent.stopped().await.unwrap().end()["cause"], "stopped");
}

#[tokio::test]
async fn confinement_ends_full_file_systems_with_an_error() {
    let mut agent = boot("fill");
    for folder in ["/dev/shm", "/tmp"] {
        line(&mut agent, &format!("{folder} of "), ": StorageFull").await;
    }
    answers(&mut agent).await;
}
