//! The enclave outlives its agent, and the next `run` takes it over.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use link::control::{EndCause, ExitStatus, FromAgent, FromInit, HealthState};
use link::{Channel, Text};
use nix::sys::signal::{Signal, kill};
use nsm::Nsm;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::task::JoinSet;
use tokio::time::{Duration, sleep, timeout};

use crate::agent::{
    Agent, Init, LIMIT, command, end_init, error_line, nothing_is_left, output, process, processes,
    until,
};
use crate::image::Builder;

const KEEP: [&str; 2] = ["--keep-for", "60s"];
const INIT: &str = "init sim";

/// An enclave that is ready, and whose agent was killed.
async fn left_alone() -> TempDir {
    let mut agent = Agent::start(&KEEP).await;
    let _init = agent.boot().await;
    remembered(&agent, "\"ready\":true").await;
    agent.killed().await
}

/// Waits until the next agent will know so.
pub(crate) async fn remembered(agent: &Agent, text: &str) {
    let record = agent.directory().join("enclave.json");
    until(|| fs::read_to_string(&record).is_ok_and(|record| record.contains(text))).await;
}

/// Stops the enclave in an orderly way.
async fn stop(agent: Agent, init: Init) {
    agent.signal(Signal::SIGTERM);
    is_shut_down(agent, init).await;
}

/// The init is asked to shut down, does so, and the agent ends.
async fn is_shut_down(agent: Agent, mut init: Init) {
    assert_eq!(
        init.receive().await,
        Some(FromAgent::Shutdown { grace_ms: None })
    );
    init.send(FromInit::Ending {
        cause: EndCause::Shutdown,
        detail: Text::default(),
        code: Text::default(),
        losses: link::control::Losses::default(),
        numbered: Vec::new(),
        workload: None,
    })
    .await;
    agent.end_init(0).await;
    assert_eq!(agent.ended().await.0, 0);
}

/// The error of a `run` that does not come to anything.
async fn refused(folder: &Path, arguments: &[&str]) -> (i32, String) {
    let mut run = command(folder, "run");
    run.arg(folder.join("test.eif"))
        .args(["--hypervisor", "sim"])
        .args(arguments);
    let ended = output(run).await;
    (ended.status.code().unwrap(), error_line(&ended))
}

#[tokio::test]
async fn keep_for_lets_the_next_run_take_over_from_a_killed_agent() {
    let mut agent = Agent::start(&KEEP).await;
    let mut init = agent.boot().await;
    init.send(FromInit::Step {
        name: Text::new("clock"),
        at_us: 1234,
        took_us: 34,
    })
    .await;
    init.send(FromInit::WorkloadExited {
        status: ExitStatus::Code(3),
        restart_in_ms: Some(1000),
        code: Text::default(),
        workload: None,
    })
    .await;
    agent.event("workload_exited").await;
    let enclave = agent.process(INIT);
    remembered(&agent, "\"restarts\":1").await;
    let folder = agent.killed().await;

    // The security module is not the agent's.
    let nsm = folder.path().join("s/test/nsm.sock");
    let random = tokio::task::spawn_blocking(move || Nsm::socket(&nsm)?.random());
    assert!(!random.await.unwrap().unwrap().is_empty());
    let status = output(command(folder.path(), "status")).await;
    assert_eq!(status.status.code(), Some(1));
    assert!(error_line(&status).contains("`test` has no agent: `parent-agent run`"));

    let mut agent = Agent::again(folder, &KEEP);
    let attached = agent.event("attached").await;
    assert_eq!(attached["name"], "test");
    assert_eq!(attached["hypervisor"], "sim");
    assert_eq!(attached["ready"], true);
    assert!(attached["age_ms"].as_u64().is_some());
    assert_eq!(agent.process(INIT), enclave);
    let status = agent.status().await;
    assert_eq!(status["state"], "ready");
    assert_eq!(status["init_version"], "9.9.9");
    assert_eq!(status["boot"], "01".repeat(16));
    assert_eq!(status["boot_steps"][0]["at_us"], 1234);
    assert_eq!(status["restarts"], 1);

    let mut init = Init::connect(&agent, 1).await;
    init.send(FromInit::Health {
        state: HealthState::Healthy,
        detail: Text::default(),
    })
    .await;
    assert_eq!(agent.event("health").await["state"], "healthy");
    let asked = agent.request("POST", "/v1/attest", "{\"nonce\":\"AA==\"}");
    let answered = async {
        let Some(FromAgent::Challenge { id, .. }) = init.receive().await else {
            panic!("no challenge");
        };
        let reason = Text::new("no");
        init.send(FromInit::ChallengeFailed { id, reason }).await;
    };
    assert_eq!(tokio::join!(asked, answered).0.0, 502);
    stop(agent, init).await;
}

#[tokio::test]
async fn keep_for_follows_an_enclave_to_its_readiness() {
    let agent = Agent::start(&KEEP).await;
    let folder = agent.killed().await;
    let mut agent = Agent::again(folder, &KEEP);
    assert_eq!(agent.event("attached").await["ready"], false);
    let init = agent.boot().await;
    stop(agent, init).await;
}

#[tokio::test]
async fn keep_for_gives_the_enclave_to_one_of_several_agents() {
    let folder = left_alone().await;
    let mut runs = JoinSet::new();
    for _ in 0..5 {
        let mut run = command(folder.path(), "run");
        run.arg(folder.path().join("test.eif"))
            .args(["--hypervisor", "sim", "--json", "--keep-for", "60s"])
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        runs.spawn(async move {
            let mut child = run.spawn().unwrap();
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
            let first = lines.next_line().await.unwrap();
            let Some(first) = first else {
                let mut stderr = String::new();
                let mut pipe = child.stderr.take().unwrap();
                pipe.read_to_string(&mut stderr).await.unwrap();
                assert_eq!(child.wait().await.unwrap().code(), Some(4), "{stderr}");
                assert!(stderr.contains("`test` is running already"), "{stderr}");
                return None;
            };
            let event: Value = serde_json::from_str(&first).unwrap();
            assert_eq!(event["event"], "attached");
            // Dropped, it would be killed.
            Some(child)
        });
    }
    let ended = timeout(LIMIT, runs.join_all()).await.unwrap();
    let winners: Vec<_> = ended.into_iter().flatten().collect();
    assert_eq!(winners.len(), 1);
    assert!(!processes(folder.path()).is_empty());
    drop(winners);
    let mut agent = Agent::again(folder, &KEEP);
    agent.event("attached").await;
    let init = Init::connect(&agent, 1).await;
    stop(agent, init).await;
}

#[tokio::test]
async fn keep_for_covers_agents_killed_at_any_moment() {
    let mut folder = left_alone().await;
    let enclave = process(folder.path(), INIT);
    for round in 0..50 {
        let agent = Agent::again(folder, &KEEP);
        // From before it has a lock to long after it has attached.
        sleep(Duration::from_millis(round * 3)).await;
        folder = agent.killed().await;
    }
    let mut agent = Agent::again(folder, &KEEP);
    agent.event("attached").await;
    assert_eq!(agent.process(INIT), enclave);
    let init = Init::connect(&agent, 1).await;
    stop(agent, init).await;
}

#[tokio::test]
async fn keep_for_does_not_cover_an_enclave_before_its_start() {
    let mut agent = Agent::spawn(Builder::new(&[], &[]).padding(24 << 20), &KEEP);
    agent.event("starting").await;
    let folder = agent.killed().await;
    nothing_is_left(&folder).await;
}

#[tokio::test]
async fn keep_for_ends_what_nobody_takes_over_and_the_log_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let image = Builder::new(&[], &[]).write(folder.path());
    let log = folder.path().join("log");
    let mut run = command(folder.path(), "run");
    run.arg(image)
        .args(["--hypervisor", "sim", "--keep-for", "200ms"])
        .stdout(std::process::Stdio::null())
        .stderr(fs::File::create(&log).unwrap());
    let mut child = run.spawn().unwrap();
    let end = folder.path().join("s/test/vsock/end");
    until(|| end.exists()).await;
    child.start_kill().unwrap();
    child.wait().await.unwrap();
    nothing_is_left(&folder).await;
    let log = fs::read_to_string(log).unwrap();
    assert!(log.contains("the agent is gone"), "{log}");
    assert!(log.contains("no agent took the enclave over"), "{log}");
}

#[tokio::test]
async fn keep_for_is_that_of_the_last_agent() {
    let folder = left_alone().await;
    let mut agent = Agent::again(folder, &[]);
    agent.event("attached").await;
    // Answered once the guard has heard of it.
    agent.status().await;
    let init = Init::connect(&agent, 1).await;
    drop(init);
    let folder = agent.killed().await;
    nothing_is_left(&folder).await;
}

#[tokio::test]
async fn keep_for_tells_of_an_end_without_an_agent_and_starts_another() {
    let folder = left_alone().await;
    let init = PathBuf::from(format!("/proc/{}", process(folder.path(), INIT)));
    end_init(&folder.path().join("s/test"), 7).await;
    // Until the guard has noticed, not only until it has no memory any more.
    until(|| !init.exists()).await;
    let mut agent = Agent::again(folder, &KEEP);
    let ended = agent.event("ended_alone").await;
    assert_eq!(ended["detail"], "enclave-init ended with code 7");
    assert_eq!(ended["console"][0], "console of sim");
    agent.event("starting").await;
    agent.until_init_waits().await;
    let init = agent.boot().await;
    stop(agent, init).await;
}

#[tokio::test]
async fn keep_for_refuses_what_cannot_change_while_the_enclave_runs() {
    let folder = left_alone().await;
    let enclave = process(folder.path(), INIT);
    let config = folder.path().join("config");
    fs::write(&config, "x").unwrap();
    for (arguments, differing) in [
        (&["--memory-mib", "128"][..], "--memory-mib"),
        (&["--debug"], "--debug"),
        (
            &["--runtime-config", config.to_str().unwrap()],
            "--runtime-config",
        ),
    ] {
        let (code, line) = refused(folder.path(), arguments).await;
        assert_eq!(code, 2, "{line}");
        let words = format!("is running with another {differing}: ");
        assert!(
            line.contains(&words) && line.contains("stop --name test"),
            "{line}"
        );
    }
    Builder::new(&[], &[]).padding(1).write(folder.path());
    let (code, line) = refused(folder.path(), &[]).await;
    assert_eq!(code, 2);
    assert!(line.contains("with another image: "), "{line}");

    let mut agent = Agent::again(folder, &KEEP);
    agent.event("attached").await;
    assert_eq!(agent.process(INIT), enclave);
    let init = Init::connect(&agent, 1).await;
    stop(agent, init).await;
}

#[tokio::test]
async fn detach_lets_an_agent_leave() {
    let mut agent = Agent::start(&KEEP).await;
    let init = agent.boot().await;
    let enclave = agent.process(INIT);
    let detached = output(command(agent.folder.path(), "detach")).await;
    assert!(detached.status.success(), "{detached:?}");
    let event = agent.event("detached").await;
    assert_eq!(
        (&event["keep_ms"], &event["exit_code"]),
        (&60_000.into(), &14.into())
    );
    let status = timeout(LIMIT, agent.child.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(14));
    drop(init);

    let Agent { folder, .. } = agent;
    let mut agent = Agent::again(folder, &[]);
    agent.event("attached").await;
    assert_eq!(agent.process(INIT), enclave);
    let init = Init::connect(&agent, 1).await;
    let refused = output(command(agent.folder.path(), "detach")).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(error_line(&refused).contains("--keep-for"));
    stop(agent, init).await;
}

#[tokio::test]
async fn stop_ends_an_enclave_without_an_agent() {
    let folder = left_alone().await;
    let stopped = output(command(folder.path(), "stop")).await;
    assert_eq!(stopped.status.code(), Some(13), "{stopped:?}");
    let text = String::from_utf8(stopped.stdout).unwrap();
    assert!(text.starts_with("test: killed: it had no agent"), "{text}");
    assert!(!folder.path().join("s/test").exists());
    nothing_is_left(&folder).await;
}

#[tokio::test]
async fn guard_killed_while_alone_takes_the_enclave_with_it() {
    let folder = left_alone().await;
    kill(process(folder.path(), "guard"), Signal::SIGKILL).unwrap();
    until(|| processes(folder.path()).is_empty()).await;
    let mut agent = Agent::again(folder, &KEEP);
    agent.event("starting").await;
    agent.until_init_waits().await;
    let init = agent.boot().await;
    stop(agent, init).await;
}

#[tokio::test]
async fn guard_killed_after_another_agent_attached_ends_the_enclave() {
    let mut agent = Agent::again(left_alone().await, &KEEP);
    agent.event("attached").await;
    kill(agent.process("guard"), Signal::SIGKILL).unwrap();
    let (code, ended, _) = agent.ended().await;
    assert_eq!((code, ended["cause"].as_str()), (12, Some("died")));
}

#[tokio::test]
async fn software_nsm_that_is_killed_ends_the_enclave() {
    let mut agent = Agent::start(&KEEP).await;
    let _init = agent.boot().await;
    kill(agent.process("software-nsm"), Signal::SIGKILL).unwrap();
    let (code, ended, _) = agent.ended().await;
    assert_eq!(code, 12);
    let detail = ended["detail"].as_str().unwrap();
    assert!(
        detail.contains("software NSM was killed by SIGKILL"),
        "{detail}"
    );
}

#[tokio::test]
async fn stop_before_the_init_is_back_waits_for_it() {
    let mut agent = Agent::again(left_alone().await, &KEEP);
    agent.event("attached").await;
    agent.signal(Signal::SIGTERM);
    // The request is taken before the connection is made.
    while agent.status().await["state"] != "ending" {
        sleep(Duration::from_millis(5)).await;
    }
    let init = Init::connect(&agent, 1).await;
    is_shut_down(agent, init).await;
}

#[tokio::test]
async fn keep_for_does_not_delay_an_end_that_has_begun() {
    let mut agent = Agent::start(&KEEP).await;
    let mut init = agent.boot().await;
    agent.signal(Signal::SIGTERM);
    init.receive().await;
    // Told to the guard after the init: seen once the state has changed.
    while agent.status().await["state"] != "ending" {
        sleep(Duration::from_millis(5)).await;
    }
    let folder = agent.killed().await;
    nothing_is_left(&folder).await;
}

#[tokio::test]
async fn logs_taken_by_an_earlier_agent_are_not_awaited() {
    let mut agent = Agent::again(left_alone().await, &KEEP);
    agent.event("attached").await;
    let init = Init::connect(&agent, 1).await;
    let mut connection = crate::logs::Connection::of(agent.open(Channel::Logs).await).await;
    let record = crate::logs::record(link::logs::LogStream::Application, 501, b"later");
    assert_eq!(
        connection.send(vec![record]).await,
        [(link::logs::LogStream::Application, 501)]
    );
    assert_eq!(agent.event("log").await["text"], "later");
    drop(connection);
    stop(agent, init).await;
}

#[tokio::test]
async fn console_is_read_while_there_is_no_agent() {
    const TALKER: &str = "#!/bin/sh
echo first
mkfifo \"$5/end.tmp\"
mv \"$5/end.tmp\" \"$5/end\"
while true; do cat \"$5/end\"; done
";
    let console = ["--keep-for", "60s", "--console"];
    let image = || Builder::new(&[], &[]).init(Some(TALKER));
    let mut agent = Agent::run(image(), &console).await;
    assert_eq!(agent.event("console").await["text"], "first");
    let folder = agent.killed().await;
    // More than a pipe holds.
    let lines: Vec<_> = (0..20_000)
        .map(|number| format!("line {number}\n"))
        .collect();
    let pipe = folder.path().join("s/test/vsock/end");
    timeout(LIMIT, tokio::fs::write(pipe, lines.concat()))
        .await
        .unwrap()
        .unwrap();
    let mut agent = Agent::spawn_in(folder, image(), &console);
    agent.event("attached").await;
    let mut last = agent.event("console").await;
    // What was printed before is not printed again.
    assert_ne!(last["text"], "first");
    while last["text"] != "line 19999" {
        last = agent.event("console").await;
    }
    let folder = agent.killed().await;
    let stopped = output(command(folder.path(), "stop")).await;
    assert_eq!(stopped.status.code(), Some(13));
    nothing_is_left(&folder).await;
}

#[tokio::test]
async fn guard_of_another_release_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let image = Builder::new(&[], &[]).write(folder.path());
    let directory = folder.path().join("s/test");
    fs::create_dir_all(&directory).unwrap();
    for path in [folder.path().join("s"), directory.clone()] {
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        fs::set_permissions(path, private).unwrap();
    }
    let lock = fs::File::create(directory.join("lock")).unwrap();
    lock.try_lock().unwrap();
    let listener = UnixListener::bind(directory.join("guard.sock")).unwrap();
    listener.set_nonblocking(true).unwrap();
    let listener = tokio::net::UnixListener::from_std(listener).unwrap();
    let guard = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        let answer = b"{\"OtherVersion\":{\"version\":99}}\n";
        stream.get_mut().write_all(answer).await.unwrap();
        line
    });
    assert!(image.exists());
    let (code, line) = refused(folder.path(), &[]).await;
    assert_eq!(code, 4);
    assert!(
        line.contains("another release") && line.contains("version 99"),
        "{line}"
    );
    assert_eq!(guard.await.unwrap(), "{\"Attach\":{\"version\":1}}\n");
    assert!(directory.join("lock").exists());
}
