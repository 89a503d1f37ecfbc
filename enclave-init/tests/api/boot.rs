//! The boot: its order, and every way that it can fail.

use std::fs;

use link::EndCode;
use link::control::{EndCause, FromInit};
use link::logs::LogStream;
use serde_json::json;
use tokio::net::UnixListener;

use crate::agent::{Agent, Behaviour, Seen};
use crate::enclave::{Enclave, Image, Prepared, ending_with_code, message, ready};

/// Waits for the end of a boot that fails, as agent and console are told.
async fn failure(prepared: Prepared) -> String {
    let mut enclave = prepared.start();
    let (cause, detail, code) = ending_with_code(&mut enclave.control().await).await;
    assert_eq!(cause, EndCause::BootFailed);
    // The words and the code name the same step.
    let step = detail.strip_prefix("boot step ").unwrap();
    let step = step.split(' ').next().unwrap();
    assert_eq!(code, format!("boot.{step}"));
    assert!(EndCode::known(&code).is_some(), "{code}");
    let (code, console) = enclave.ended().await;
    assert_eq!(code, 1);
    assert!(console.contains(&detail), "{console}");
    detail
}

/// Waits for the end of a boot that fails where the agent cannot be told.
async fn console_of(mut enclave: Enclave) -> String {
    let (code, console) = enclave.ended().await;
    assert_eq!(code, 1, "{console}");
    console
}

#[tokio::test]
async fn boot_steps_come_in_their_order_with_their_times() {
    let (enclave, mut control) = Image::new(&["wait"]).boot().await;
    let expected = [
        "mounts",
        "configuration",
        "root",
        "loopback",
        "confinement",
        "heartbeat",
        "nsm",
        "entropy",
        "clock",
        "control",
        "runtime-configuration",
        "registers",
        "self-check",
        "services",
    ];
    let mut ended_at = 0;
    for expected in expected {
        let (name, at, took) = message(&mut control, |message| match message {
            FromInit::Step {
                name,
                at_us,
                took_us,
            } => Some((name.to_string(), *at_us, *took_us)),
            FromInit::Ready { .. } => panic!("ready before the steps"),
            _ => None,
        })
        .await;
        assert_eq!(name, expected);
        assert!(at >= ended_at + took, "{name} begins before the last ends");
        ended_at = at;
        let line = format!("boot step={name} at_us={at} took_us={took}");
        enclave.line(LogStream::System, &line).await;
    }
    let ready = message(&mut control, |message| match message {
        FromInit::Ready { at_us } => Some(*at_us),
        _ => None,
    });
    assert!(ready.await >= ended_at);
    let seen = enclave.prepared.agent.shared.seen.lock().unwrap().clone();
    assert_eq!(seen, [Seen::Heartbeat, Seen::Control, Seen::Logs]);
    assert_eq!(control.boot.len(), 16);
}

#[tokio::test]
async fn boot_has_a_number_of_its_own() {
    let (_first, one) = Image::new(&["wait"]).boot().await;
    let (_second, two) = Image::new(&["wait"]).boot().await;
    assert_ne!(one.boot, two.boot);
}

#[tokio::test]
async fn boot_names_a_configuration_that_is_missing_or_wrong() {
    let prepared = Image::new(&[]).prepare();
    fs::remove_file(prepared.folder.path().join("tree/enclave/config.json")).unwrap();
    let detail = failure(prepared).await;
    assert!(
        detail.starts_with("boot step configuration failed"),
        "{detail}"
    );
    assert!(detail.contains("config.json"), "{detail}");

    let detail = failure(Image::new(&[]).with("/schema", json!(2)).prepare()).await;
    assert!(detail.contains("same release"), "{detail}");
}

#[tokio::test]
async fn boot_names_something_else_in_a_mounts_place() {
    for (path, is_link) in [("dev", true), ("proc", false)] {
        let prepared = Image::new(&[]).prepare();
        let elsewhere = prepared.folder.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        let place = prepared.folder.path().join("tree/rootfs").join(path);
        if is_link {
            std::os::unix::fs::symlink(&elsewhere, &place).unwrap();
        } else {
            fs::write(&place, "").unwrap();
        }
        let detail = failure(prepared).await;
        assert!(detail.starts_with("boot step root failed"), "{detail}");
        assert!(
            detail.contains(&format!("{path} is not a folder")),
            "{detail}"
        );
    }
}

#[tokio::test]
async fn boot_names_a_missing_root() {
    let prepared = Image::new(&[]).prepare();
    let tree = prepared.folder.path().join("tree");
    fs::rename(tree.join("rootfs"), tree.join("other")).unwrap();
    let detail = failure(prepared).await;
    assert!(detail.starts_with("boot step root failed"), "{detail}");
    assert!(detail.contains("rootfs"), "{detail}");
}

#[tokio::test]
async fn boot_names_an_nsm_that_does_not_answer() {
    let prepared = Image::new(&[]).prepare();
    prepared.nsm.abort();
    let path = prepared.folder.path().join("nsm");
    fs::remove_file(&path).unwrap();
    // Bound, but nobody listens: connections are refused.
    let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    let detail = failure(prepared).await;
    drop(socket);
    assert!(detail.starts_with("boot step nsm failed"), "{detail}");
    assert!(detail.contains("security module failed"), "{detail}");
}

#[tokio::test]
async fn boot_names_an_nsm_that_hangs_up() {
    let prepared = Image::new(&[]).prepare();
    prepared.nsm.abort();
    let path = prepared.folder.path().join("nsm");
    fs::remove_file(&path).unwrap();
    let listener = UnixListener::bind(&path).unwrap();
    let hanging_up = tokio::spawn(async move {
        loop {
            drop(listener.accept().await.unwrap());
        }
    });
    let detail = failure(prepared).await;
    hanging_up.abort();
    assert!(detail.starts_with("boot step entropy failed"), "{detail}");
}

#[tokio::test]
async fn boot_names_a_register_that_is_locked_already() {
    let prepared = Image::new(&[]).prepare();
    let path = prepared.folder.path().join("nsm");
    tokio::task::spawn_blocking(move || {
        let mut nsm = nsm::Nsm::socket(&path).unwrap();
        nsm.lock_pcr(16).unwrap();
    })
    .await
    .unwrap();
    let detail = failure(prepared).await;
    assert!(
        detail.starts_with("boot step runtime-configuration failed"),
        "{detail}"
    );
    assert!(detail.contains("the register is locked"), "{detail}");
}

#[tokio::test]
async fn boot_names_an_ingress_socket_that_is_taken() {
    let prepared = Image::new(&[]).prepare();
    fs::write(prepared.folder.path().join("sockets/enclave_7001"), "").unwrap();
    let detail = failure(prepared).await;
    assert!(detail.starts_with("boot step services failed"), "{detail}");
    assert!(detail.contains("enclave_7001"), "{detail}");
}

#[tokio::test]
async fn boot_names_a_workload_that_cannot_be_started() {
    for (pointer, part, reason) in [
        ("/workload/command", json!(["/bin/nothing"]), "is missing"),
        ("/workload/command", json!(["/etc/hosts"]), "not executable"),
        (
            "/workload/working_directory",
            json!("/srv"),
            "the image has no folder /srv",
        ),
    ] {
        let detail = failure(Image::new(&[]).with(pointer, part).prepare()).await;
        assert!(detail.starts_with("boot step workload failed"), "{detail}");
        assert!(detail.contains(reason), "{detail}");
    }
}

#[tokio::test]
async fn boot_names_missing_sockets_on_the_console() {
    let prepared = Image::new(&[]).prepare();
    fs::remove_dir_all(prepared.folder.path().join("sockets")).unwrap();
    let console = console_of(prepared.start()).await;
    assert!(console.contains("boot step mounts failed"), "{console}");
    assert!(console.contains("/sockets"), "{console}");
}

#[tokio::test]
async fn boot_names_an_agent_that_closes_on_the_console() {
    let mut prepared = Image::new(&[]).prepare();
    // The heartbeat is answered, and then nothing is.
    prepared.agent.stop().await;
    let sockets = prepared.folder.path().join("sockets");
    for socket in ["host_9000", "host_7000"] {
        // A listener removes its file when it is dropped.
        assert!(!sockets.join(socket).exists());
    }
    let heartbeat = UnixListener::bind(sockets.join("host_9000")).unwrap();
    let control = UnixListener::bind(sockets.join("host_7000")).unwrap();
    let agent = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (mut beat, _) = heartbeat.accept().await.unwrap();
        let byte = beat.read_u8().await.unwrap();
        beat.write_u8(byte).await.unwrap();
        loop {
            drop(control.accept().await.unwrap());
        }
    });
    let console = console_of(prepared.start()).await;
    agent.abort();
    assert!(console.contains("boot step control failed"), "{console}");
}

#[tokio::test]
async fn boot_waits_for_an_agent_that_went_away_and_comes_back() {
    let mut prepared = Image::new(&["wait"]).prepare();
    prepared.agent.stop().await;
    let sockets = prepared.folder.path().join("sockets");
    let heartbeat = UnixListener::bind(sockets.join("host_9000")).unwrap();
    let control = UnixListener::bind(sockets.join("host_7000")).unwrap();
    let mut enclave = prepared.start();
    {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (mut beat, _) = heartbeat.accept().await.unwrap();
        let byte = beat.read_u8().await.unwrap();
        beat.write_u8(byte).await.unwrap();
        drop(control.accept().await.unwrap());
    }
    // Killed, as it were: its sockets' files stay behind.
    drop((heartbeat, control));
    for socket in ["host_9000", "host_7000"] {
        fs::remove_file(sockets.join(socket)).unwrap();
    }
    enclave.prepared.agent = Agent::start(&sockets, Behaviour::default());
    ready(&mut enclave.control().await).await;
}

#[tokio::test]
async fn boot_without_a_parent_gives_up() {
    let mut silent = Image::new(&[]).prepare();
    silent.agent.stop().await;
    let other = Image::new(&[])
        .agent(|agent| agent.heartbeat = 0x17)
        .prepare();
    let (silent, other) = tokio::join!(console_of(silent.start()), console_of(other.start()));
    for console in [silent, other] {
        assert!(console.contains("boot step heartbeat failed"), "{console}");
        assert!(console.contains("no parent answered"), "{console}");
    }
}

#[tokio::test]
async fn boot_hears_a_shutdown() {
    let mut prepared = Image::new(&[]).prepare();
    prepared.agent.stop().await;
    let mut enclave = prepared.start();
    // The name server's file is written before the parent is looked for.
    let written = enclave.path("etc/resolv.conf");
    crate::enclave::until(|| written.exists()).await;
    enclave.signal(nix::sys::signal::Signal::SIGTERM);
    let (code, console) = enclave.ended().await;
    assert_eq!(code, 0);
    assert!(console.contains("before the boot was over"), "{console}");
}

#[tokio::test]
async fn exit_code_of_wrong_arguments() {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_enclave-init"));
    let output = command.args(["sim", "--tree"]).output().await.unwrap();
    assert_eq!(output.status.code(), Some(2));
    let console = String::from_utf8(output.stderr).unwrap();
    assert_eq!(console, "enclave-init: --tree needs a value\n");
}
