//! From the start to every kind of end.

use std::time::Duration;

use eif::Signer;
use link::control::{EndCause, ExitStatus, FromAgent, FromInit, HealthState};
use link::{Text, hello};
use nix::sys::signal::{Signal, kill};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P384_SHA384, date_time_ymd};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::agent::{Agent, Init, command, error_line, nothing_is_left, output, until};
use crate::image::Builder;

fn ending(cause: EndCause) -> FromInit {
    FromInit::Ending {
        cause,
        detail: Text::default(),
        code: Text::default(),
        losses: link::control::Losses::default(),
        numbered: Vec::new(),
        workload: None,
    }
}

#[tokio::test]
async fn run_boots_an_enclave_that_is_seen_and_stops_when_told() {
    let mut agent = Agent::start(&[]).await;
    let started = agent.event("starting").await;
    assert_eq!(started["name"], "test");
    assert_eq!(started["pcrs"]["0"].as_str().unwrap().len(), 96);
    assert_eq!(agent.status().await["state"], "booting");
    let mut init = Init::connect(&agent, 1).await;
    init.send(FromInit::Step {
        name: Text::new("clock"),
        at_us: 1234,
        took_us: 34,
    })
    .await;
    assert_eq!(agent.event("step").await["name"], "clock");
    init.send(FromInit::Ready { at_us: 2000 }).await;
    agent.event("ready").await;
    for state in [
        HealthState::Healthy,
        HealthState::Healthy,
        HealthState::Unhealthy,
    ] {
        let detail = Text::new("probe");
        init.send(FromInit::Health { state, detail }).await;
    }
    assert_eq!(agent.event("health").await["state"], "healthy");
    assert_eq!(agent.event("health").await["state"], "unhealthy");
    // It was ready, and is not well.
    let (_, page) = agent.request("GET", "/metrics", "").await;
    let page = String::from_utf8(page).unwrap();
    for sample in ["enclave_ready 1", "enclave_healthy 0"] {
        assert!(page.lines().any(|line| line == sample), "{sample}: {page}");
    }
    init.send(FromInit::WorkloadExited {
        status: ExitStatus::Code(3),
        restart_in_ms: Some(1000),
        code: Text::default(),
        workload: None,
    })
    .await;
    assert_eq!(agent.event("workload_exited").await["status"]["code"], 3);

    let status = agent.status().await;
    assert_eq!(status["state"], "ready");
    assert_eq!(status["init_version"], "9.9.9");
    assert_eq!(status["boot"], "01".repeat(16));
    assert_eq!(status["boot_steps"][0]["at_us"], 1234);
    assert_eq!(status["restarts"], 1);
    assert_eq!(status["pcrs"], started["pcrs"]);
    let table = output(command(agent.folder.path(), "status")).await;
    assert!(
        String::from_utf8(table.stdout)
            .unwrap()
            .contains("state       ready")
    );

    let mut stop = command(agent.folder.path(), "stop");
    stop.args(["--name", "test", "--grace", "1500ms"]);
    let stopped = tokio::spawn(output(stop));
    let shutdown = FromAgent::Shutdown {
        grace_ms: Some(1500),
    };
    assert_eq!(init.receive().await, Some(shutdown));
    init.send(ending(EndCause::Shutdown)).await;
    agent.end_init(0).await;
    let stopped = stopped.await.unwrap();
    assert!(stopped.status.success(), "{stopped:?}");
    assert_eq!(stopped.stdout, b"test: stopped: as asked\n");
    // `stop` returns when everything is gone already.
    assert!(!agent.directory().exists());
    let (code, ended, _) = agent.ended().await;
    assert_eq!((code, ended["cause"].as_str()), (0, Some("stopped")));
}

#[tokio::test]
async fn state_dir_that_is_not_the_default_is_part_of_every_hint() {
    let folder = tempfile::tempdir().unwrap();
    // With a blank, which a shell must not take for the end of an argument.
    let state = folder.path().join("a b");
    let image = Builder::new(&[], &[]).write(folder.path());
    let log = folder.path().join("log");
    let mut run = tokio::process::Command::new(env!("CARGO_BIN_EXE_parent-agent"));
    run.arg("run")
        .arg(image)
        .args(["--hypervisor", "sim", "--state-dir"])
        .arg(&state)
        .env("TMPDIR", folder.path())
        .env("XDG_STATE_HOME", folder.path().join("logs"))
        .stdout(std::process::Stdio::null())
        .stderr(std::fs::File::create(&log).unwrap())
        .kill_on_drop(true);
    let mut run = run.spawn().unwrap();
    let said = || std::fs::read_to_string(&log).unwrap();
    until(|| said().contains("try ") && state.join("test/control.sock").exists()).await;
    let said = said();
    let hint = said.lines().find_map(|line| line.strip_prefix("try "));
    let program = env!("CARGO_BIN_EXE_parent-agent");
    let line = hint.unwrap().trim().replacen("parent-agent", program, 1);
    let mut shell = tokio::process::Command::new("sh");
    shell.args(["-c", &line]);
    let status = output(shell).await;
    assert!(status.status.success(), "{line}: {status:?}");
    let table = String::from_utf8(status.stdout).unwrap();
    assert!(table.starts_with("name        test\n"), "{table}");
    let pid = nix::unistd::Pid::from_raw(run.id().unwrap().cast_signed());
    kill(pid, Signal::SIGTERM).unwrap();
    assert!(run.wait().await.unwrap().success());
}

#[tokio::test]
async fn exit_code_of_every_announced_end() {
    for (cause, code, name) in [
        (
            EndCause::WorkloadExited(ExitStatus::Code(0)),
            0,
            "workload-finished",
        ),
        (
            EndCause::WorkloadExited(ExitStatus::Code(1)),
            10,
            "workload-failed",
        ),
        (EndCause::BootFailed, 11, "boot-failed"),
        (EndCause::InitFailed, 12, "died"),
    ] {
        let mut agent = Agent::start(&[]).await;
        let mut init = agent.boot().await;
        init.send(ending(cause)).await;
        agent.end_init(1).await;
        let (exit, ended, _) = agent.ended().await;
        assert_eq!((exit, ended["cause"].as_str()), (code, Some(name)));
    }
}

#[tokio::test]
async fn console_is_told_with_an_end_without_a_word() {
    let agent = Agent::start(&[]).await;
    agent.end_init(7).await;
    let (code, ended, _) = agent.ended().await;
    assert_eq!((code, ended["cause"].as_str()), (11, Some("boot-failed")));
    let detail = ended["detail"].as_str().unwrap();
    assert!(
        detail.contains("enclave-init ended with code 7"),
        "{detail}"
    );
    assert_eq!(ended["console"][0], "console of sim");

    let mut agent = Agent::start(&[]).await;
    let _init = agent.boot().await;
    agent.end_init(7).await;
    let (code, ended, _) = agent.ended().await;
    assert_eq!((code, ended["cause"].as_str()), (12, Some("died")));
}

/// Each ends at once, about when the agent learns that there is an init: no moment may
/// have it wait for the boot's end.
#[tokio::test]
async fn init_that_ends_at_once_ends_the_boot_at_any_moment() {
    for (init, code) in [("#!/absent\n", 1), ("#!/bin/sh\nexit 2\n", 2)] {
        for _ in 0..10 {
            let image = Builder::new(&[], &[]).init(Some(init));
            let agent = Agent::spawn(image, &["--boot-timeout", "300s"]);
            let (exit, ended, _) = agent.ended().await;
            assert_eq!((exit, ended["cause"].as_str()), (11, Some("boot-failed")));
            let detail = ended["detail"].as_str().unwrap();
            let said = format!("enclave-init ended with code {code}");
            assert!(detail.contains(&said), "{detail}");
        }
    }
}

#[tokio::test]
async fn boot_that_is_silent_is_given_up() {
    let agent = Agent::start(&["--boot-timeout", "100ms"]).await;
    let (code, ended, _) = agent.ended().await;
    assert_eq!(code, 11);
    let detail = ended["detail"].as_str().unwrap();
    assert!(detail.contains("no heartbeat"), "{detail}");
}

#[tokio::test]
async fn kernel_panic_ends_the_boot_with_its_words_and_advice() {
    const PANICS: &str = "#!/bin/sh
echo '[    0.528514] Kernel panic - not syncing: System is deadlocked on memory'
for line in 1 2 3 4 5 6 7 8 9; do
echo '[    0.5] Call Trace:'; echo; echo; echo; echo; echo
done
exec sleep 1000
";
    let image = Builder::new(&[], &[]).init(Some(PANICS));
    let agent = Agent::spawn(image, &["--boot-timeout", "300s"]);
    let (code, ended, _) = agent.ended().await;
    assert_eq!((code, ended["crash"].as_str()), (11, Some("kernel-panic")));
    let detail = ended["detail"].as_str().unwrap();
    assert!(
        detail.starts_with("its kernel panicked before it was ready: System is deadlocked on memory; it has too little memory: give it more with --memory-mib"),
        "{detail}"
    );
}

#[tokio::test]
async fn signal_stops_and_a_second_kills_unless_it_follows_at_once() {
    let mut agent = Agent::start(&[]).await;
    let mut init = agent.boot().await;
    // As `timeout` of coreutils and some service managers do.
    agent.signal(Signal::SIGTERM);
    tokio::time::sleep(Duration::from_millis(1)).await;
    agent.signal(Signal::SIGTERM);
    assert_eq!(
        init.receive().await,
        Some(FromAgent::Shutdown { grace_ms: None })
    );
    agent.signal(Signal::SIGINT);
    agent.signal(Signal::SIGTERM);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(agent.status().await["state"], "ending");
    agent.signal(Signal::SIGTERM);
    let (code, ended, _) = agent.ended().await;
    assert_eq!((code, ended["cause"].as_str()), (13, Some("killed")));
}

#[tokio::test]
async fn stop_says_by_its_code_that_the_enclave_had_to_be_killed() {
    let mut agent = Agent::start(&[]).await;
    let mut init = agent.boot().await;
    let stop = output(command(agent.folder.path(), "stop"));
    let impatience = async {
        init.receive().await.unwrap();
        agent.signal(Signal::SIGTERM);
    };
    let (stopped, ()) = tokio::join!(stop, impatience);
    assert_eq!(stopped.status.code(), Some(13), "{stopped:?}");
    let text = String::from_utf8(stopped.stdout).unwrap();
    assert!(text.starts_with("test: killed: "), "{text}");
    assert_eq!(agent.ended().await.0, 13);
}

#[tokio::test]
async fn signal_before_anybody_listens_stops_at_once() {
    let agent = Agent::start(&[]).await;
    agent.signal(Signal::SIGTERM);
    let (code, ended, _) = agent.ended().await;
    assert_eq!((code, ended["cause"].as_str()), (0, Some("stopped")));
}

#[tokio::test]
async fn protocol_version_that_is_another_ends_the_boot_with_advice() {
    let agent = Agent::start(&[]).await;
    let mut stream = agent.connect().await;
    stream.write_all(b"ENCL\0\x63\x01\0").await.unwrap();
    let mut answer = [0; 8];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer[4..6], hello::VERSION.to_be_bytes());
    let (code, ended, _) = agent.ended().await;
    assert_eq!(code, 11);
    let detail = ended["detail"].as_str().unwrap();
    assert!(
        detail.contains("version 99") && detail.contains("same release"),
        "{detail}"
    );
}

#[tokio::test]
async fn control_connection_may_be_opened_again() {
    let mut agent = Agent::start(&[]).await;
    let first = agent.boot().await;
    let mut second = Init::connect(&agent, 1).await;
    drop(first);
    second
        .send(FromInit::Health {
            state: HealthState::Healthy,
            detail: Text::default(),
        })
        .await;
    agent.event("health").await;
    assert_eq!(agent.status().await["state"], "ready");
    second.send(ending(EndCause::Shutdown)).await;
    agent.end_init(0).await;
    assert_eq!(agent.ended().await.0, 0);
}

#[tokio::test]
async fn runtime_config_arrives_byte_for_byte() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), b"\0\xfftenant=7").unwrap();
    let agent = Agent::start(&["--runtime-config", file.path().to_str().unwrap()]).await;
    let init = Init::connect(&agent, 1).await;
    assert_eq!(init.runtime_config, b"\0\xfftenant=7");
    agent.end_init(0).await;
    agent.ended().await;
}

#[tokio::test]
async fn kill_of_the_agent_leaves_nothing() {
    let mut agent = Agent::start(&[]).await;
    let _init = agent.boot().await;
    agent.signal(Signal::SIGKILL);
    agent.child.wait().await.unwrap();
    nothing_is_left(&agent.folder).await;
}

#[tokio::test]
async fn kill_of_an_agent_that_unpacks_leaves_nothing() {
    let mut agent = Agent::spawn(Builder::new(&[], &[]).padding(24 << 20), &[]);
    agent.event("starting").await;
    agent.signal(Signal::SIGKILL);
    agent.child.wait().await.unwrap();
    nothing_is_left(&agent.folder).await;
}

#[tokio::test]
async fn kill_of_the_guard_ends_the_enclave() {
    let mut agent = Agent::start(&[]).await;
    let _init = agent.boot().await;
    kill(agent.process("guard"), Signal::SIGKILL).unwrap();
    let (code, ended, _) = agent.ended().await;
    assert_eq!((code, ended["cause"].as_str()), (12, Some("died")));
    let detail = ended["detail"].as_str().unwrap();
    assert!(detail.contains("guard process was killed"), "{detail}");
}

#[tokio::test]
async fn kill_of_the_init_ends_the_enclave() {
    let mut agent = Agent::start(&[]).await;
    let _init = agent.boot().await;
    kill(agent.process("init sim"), Signal::SIGKILL).unwrap();
    let (code, ended, _) = agent.ended().await;
    assert_eq!((code, ended["cause"].as_str()), (12, Some("died")));
    let detail = ended["detail"].as_str().unwrap();
    assert!(detail.contains("killed by SIGKILL"), "{detail}");
}

#[tokio::test]
async fn kill_of_agent_and_guard_leaves_what_the_next_run_removes() {
    let mut agent = Agent::start(&[]).await;
    let _init = agent.boot().await;
    let guard = agent.process("guard");
    // Stopped first, so that neither sees the other's end.
    kill(guard, Signal::SIGSTOP).unwrap();
    agent.signal(Signal::SIGKILL);
    kill(guard, Signal::SIGKILL).unwrap();
    agent.child.wait().await.unwrap();
    until(|| crate::agent::processes(&agent.directory()).is_empty()).await;
    assert!(agent.directory().exists());
    let Agent { folder, .. } = agent;
    let mut next = Agent::spawn_in(folder, Builder::new(&[], &[]), &[]);
    next.event("starting").await;
    next.signal(Signal::SIGTERM);
    assert_eq!(next.ended().await.0, 0);
}

#[tokio::test]
async fn name_is_taken_until_its_enclave_is_gone() {
    let mut agent = Agent::start(&[]).await;
    let _init = agent.boot().await;
    let mut second = command(agent.folder.path(), "run");
    second
        .arg(agent.folder.path().join("test.eif"))
        .args(["--hypervisor", "sim"]);
    let refused = output(second).await;
    assert_eq!(refused.status.code(), Some(4));
    assert!(error_line(&refused).contains("`test` is running already"));

    let mut other = command(agent.folder.path(), "run");
    other.arg(agent.folder.path().join("test.eif")).args([
        "--hypervisor",
        "sim",
        "--name",
        "other",
        "--boot-timeout",
        "100ms",
    ]);
    assert_eq!(output(other).await.status.code(), Some(11));

    // Right behind a killed one, while its guard still cleans up.
    agent.signal(Signal::SIGKILL);
    agent.child.wait().await.unwrap();
    let Agent { folder, .. } = agent;
    let mut next = Agent::spawn_in(folder, Builder::new(&[], &[]), &[]);
    next.event("starting").await;
    next.signal(Signal::SIGTERM);
    assert_eq!(next.ended().await.0, 0);
}

#[tokio::test]
async fn restart_of_what_crashes_comes_later_each_time() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["--name", "test", "--restart-backoff", "2s"];
    let mut agent = Agent::spawn_in(folder, Builder::new(&[], &[]), &arguments);
    agent.until_init_waits().await;
    agent.end_init(9).await;
    let ended = agent.event("ended").await;
    assert_eq!(ended["crash"], "boot-failure");
    let folder = agent.finished().await;
    let last = folder.path().join("logs/enclaves/test/last-end.json");
    let read = || -> Value { serde_json::from_slice(&std::fs::read(&last).unwrap()).unwrap() };
    let first = read();
    assert_eq!(first["crashes"], 1);
    assert!(
        first["console"][0]
            .as_str()
            .unwrap()
            .starts_with("console of")
    );

    // The same for an enclave that could not be started at all.
    let image = Builder::new(&[], &[]).without_host_config();
    let agent = Agent::spawn_in(folder, image, &arguments);
    let (code, error, folder) = agent.failed_and_left().await;
    assert_eq!(code, 3);
    assert!(error.contains("is started again later"), "{error}");
    let last = folder.path().join("logs/enclaves/test/last-end.json");
    let second: Value = serde_json::from_slice(&std::fs::read(&last).unwrap()).unwrap();
    assert_eq!(second["crashes"], 2);
    let between = second["time_us"].as_u64().unwrap() - first["time_us"].as_u64().unwrap();
    assert!(between >= 1_000_000, "{between}");

    // A stop ends the wait.
    let mut agent = Agent::spawn_in(folder, Builder::new(&[], &[]), &arguments);
    agent.said("is started again later").await;
    agent.signal(Signal::SIGTERM);
    let (code, _) = agent.failed().await;
    assert_eq!(code, 0);
}

/// A key, and its certificate of those years.
fn signer(years: (i32, i32)) -> Signer {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    let mut certificate = CertificateParams::default();
    certificate.not_before = date_time_ymd(years.0, 1, 1);
    certificate.not_after = date_time_ymd(years.1, 1, 1);
    let certificate = certificate.self_signed(&key).unwrap();
    Signer::from_pem(key.serialize_pem().as_bytes(), certificate.pem().as_bytes()).unwrap()
}

#[tokio::test]
async fn certificate_that_is_not_valid_now_is_named_and_the_image_starts() {
    for (years, problem) in [
        ((2020, 2021), Some("it expired at 2021-01-01T00:00:00Z")),
        (
            (4000, 4001),
            Some("it is not valid before 4000-01-01T00:00:00Z"),
        ),
        ((2020, 4000), None),
    ] {
        let image = Builder::new(&[], &[]).signed(signer(years));
        let mut agent = Agent::run(image, &[]).await;
        let mut init = agent.boot().await;
        init.send(ending(EndCause::Shutdown)).await;
        agent.end_init(0).await;
        let (code, _, stderr) = agent.ended().await;
        assert_eq!(code, 0);
        let is_named = stderr.contains("the certificate that the image is signed with");
        assert_eq!(is_named, problem.is_some(), "{stderr}");
        assert!(stderr.contains(problem.unwrap_or_default()), "{stderr}");
    }
}
