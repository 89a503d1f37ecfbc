//! What is lost, and how an enclave ended, as those who come later learn of it.

use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use link::Text;
use link::control::{EndCause, ExitStatus, FromInit, Loss, LossReason, Losses};
use link::logs::LogStream;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::agent::{Agent, LIMIT, command, output};
use crate::logs::{Connection, record};

fn loss(reason: LossReason, records: u64) -> Loss {
    Loss {
        stream: LogStream::Application,
        reason,
        records,
    }
}

fn ending(cause: EndCause, code: &str, losses: Vec<Loss>, numbered: u64) -> FromInit {
    FromInit::Ending {
        cause,
        detail: Text::new("because"),
        code: Text::new(code),
        losses: Losses(losses),
        numbered: vec![(LogStream::Application, numbered)],
        workload: None,
    }
}

fn last_end(folder: &Path) -> Value {
    let path = folder.join("logs/enclaves/test/last-end.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// How many of the workload's records the spool holds.
async fn stored(folder: &Path) -> u64 {
    let mut logs = tokio::process::Command::new(env!("CARGO_BIN_EXE_parent-agent"));
    logs.args(["logs", "--name", "test", "--stream", "application"])
        .env("XDG_STATE_HOME", folder.join("logs"));
    let output = output(logs).await;
    assert!(output.status.success(), "{output:?}");
    let lines = output.stdout.iter().filter(|byte| **byte == b'\n');
    u64::try_from(lines.count()).unwrap()
}

#[tokio::test]
async fn losses_behind_a_full_spool_are_said_at_stop_to_the_last_record() {
    const DROPPED: u64 = 13_800_000;
    // A destination that takes the first request and never answers.
    let stalled = TcpListener::bind("127.0.0.1:0").unwrap();
    let sink = format!("otlp:http://{}", stalled.local_addr().unwrap());
    let arguments = ["--sink", &sink, "--log-max-size", "16MiB"];
    let mut agent = Agent::start(&arguments).await;
    let mut init = agent.boot().await;
    let mut connection = Connection::open(&agent).await;
    let data = vec![b'x'; 50_000];
    let mut last = 0;
    // Batches until one is not acknowledged.
    let pending = loop {
        let batch: Vec<_> = (1..=10)
            .map(|number| record(LogStream::Application, last + number, &data))
            .collect();
        match timeout(Duration::from_secs(2), connection.send(batch)).await {
            Ok(held) => {
                last += 10;
                assert_eq!(held, [(LogStream::Application, last)]);
            }
            Err(_) => break last + 10,
        }
    };
    let status = agent.status().await;
    assert_eq!(status["logs"]["spool"]["full"], true);
    // Behind it the enclave drops, and says so beside the log.
    let told = vec![loss(LossReason::QueueFull, DROPPED)];
    let losses = Losses(told.clone());
    init.send(FromInit::Lost { losses }).await;
    let mut status = agent.status().await;
    while status["logs"]["lost"] != json!({"application": {"queue-full": DROPPED}}) {
        sleep(Duration::from_millis(5)).await;
        status = agent.status().await;
    }
    let (_, metrics) = agent.request("GET", "/metrics", "").await;
    let metrics = String::from_utf8(metrics).unwrap();
    let line = format!(
        "enclave_logs_lost_total{{stream=\"application\",reason=\"queue-full\"}} {DROPPED}\n"
    );
    assert!(metrics.contains(&line), "{metrics}");

    let folder = agent.folder.path().to_owned();
    let stop = output(command(&folder, "stop"));
    let enclave = async {
        init.receive().await.unwrap();
        // It gives up what is pending, and 7 records more.
        let ended = pending - last + 7;
        let losses = [told, vec![loss(LossReason::Ended, ended)]].concat();
        let numbered = last + DROPPED + ended;
        init.send(ending(EndCause::Shutdown, "", losses, numbered))
            .await;
        drop(init);
        drop(connection);
        agent.end_init(0).await;
        let ended = agent.event("ended").await;
        (numbered, ended)
    };
    let (stop, (numbered, ended)) = tokio::join!(stop, enclave);
    let stored = stored(&folder).await;
    let missing = numbered - stored;
    assert_eq!(ended["lost"]["in_enclave"], missing);
    assert_eq!(ended["lost"]["complete"], true);
    assert_eq!(ended["exit_code"], 0);
    assert_eq!(stop.status.code(), Some(0));
    let text = String::from_utf8(stop.stdout).unwrap();
    let expected = format!("\ntest: lost: {missing} log records in the enclave (application: ");
    assert!(text.contains(&expected), "{text}");
    assert_eq!(last_end(&folder)["lost"], ended["lost"]);
}

#[tokio::test]
async fn losses_are_only_a_minimum_where_the_enclave_ends_without_a_word() {
    let mut agent = Agent::start(&[]).await;
    let mut init = agent.boot().await;
    let mut connection = Connection::open(&agent).await;
    let application = LogStream::Application;
    connection
        .send(vec![
            record(application, 1, b"one"),
            record(application, 5, b"five"),
        ])
        .await;
    let losses = Losses(vec![loss(LossReason::QueueFull, 2)]);
    init.send(FromInit::Lost { losses }).await;
    while agent.status().await["logs"]["lost"] == json!({}) {
        sleep(Duration::from_millis(5)).await;
    }
    agent.end_init(9).await;
    drop((init, connection));
    let ended = agent.event("ended").await;
    // Three numbers were left out, so as many were lost, whatever was told.
    assert_eq!(ended["lost"]["in_enclave"], 3);
    assert_eq!(ended["lost"]["complete"], false);
    assert_eq!(ended["crash"], "machine-ended");
}

#[tokio::test]
async fn losses_are_only_a_minimum_where_the_init_panics() {
    let cases = [
        // The queue was locked, so it says nothing of it.
        (vec![], 0),
        (vec![loss(LossReason::Ended, 2)], 4),
    ];
    for (told, numbered) in cases {
        let mut agent = Agent::start(&[]).await;
        let mut init = agent.boot().await;
        let losses = Losses(vec![loss(LossReason::QueueFull, 1)]);
        init.send(FromInit::Lost { losses }).await;
        let mut connection = Connection::open(&agent).await;
        let application = LogStream::Application;
        let records = [1, 2, 4].map(|number| record(application, number, b"text"));
        connection.send(records.to_vec()).await;
        init.send(ending(EndCause::InitFailed, "init.panic", told, numbered))
            .await;
        agent.end_init(1).await;
        drop((init, connection));
        let ended = agent.event("ended").await;
        // What it gave up and the agent does hold is not lost all the same.
        assert_eq!(ended["lost"]["in_enclave"], 1);
        assert_eq!(ended["lost"]["complete"], false);
        let folder = agent.finished().await;
        assert_eq!(last_end(folder.path())["lost"], ended["lost"]);
    }
}

#[tokio::test]
async fn ends_keep_their_codes_for_those_who_come_later() {
    let killed = EndCause::WorkloadExited(ExitStatus::Signal(9));
    let cases = [
        (
            EndCause::BootFailed,
            "boot.root",
            "boot-failure",
            11,
            "boot.root",
        ),
        (
            killed,
            "workload.out-of-memory",
            "out-of-memory",
            10,
            "workload.out-of-memory",
        ),
        (
            EndCause::InitFailed,
            "init.panic",
            "init-failure",
            12,
            "init.panic",
        ),
        // Of a later release.
        (
            EndCause::BootFailed,
            "boot.unheard-of",
            "boot-failure",
            11,
            "other",
        ),
    ];
    for (cause, code, crash, exit, label) in cases {
        let mut agent = Agent::start(&[]).await;
        let mut init = agent.boot().await;
        init.send(ending(cause, code, Vec::new(), 0)).await;
        agent.end_init(1).await;
        drop(init);
        let ended = agent.event("ended").await;
        assert_eq!(ended["code"], code);
        assert_eq!(ended["crash"], crash);
        assert_eq!(ended["exit_code"], exit);
        let folder = agent.finished().await;
        assert_eq!(last_end(folder.path())["code"], code);

        let agent = Agent::again(folder, &[]);
        agent.until_init_waits().await;
        let status = agent.status().await;
        assert_eq!(status["last_end"]["code"], code);
        assert_eq!(status["last_end"]["crash"], crash);
        let (_, metrics) = agent.request("GET", "/metrics", "").await;
        let metrics = String::from_utf8(metrics).unwrap();
        let line = format!("crash=\"{crash}\",code=\"{label}\"}} 1\n");
        assert!(metrics.contains(&line), "{metrics}");
        agent.end_init(0).await;
        agent.ended().await;
    }
}

#[tokio::test]
async fn limits_are_shown_and_counts_never_shrink() {
    let mut agent = Agent::start(&[]).await;
    let mut init = agent.boot().await;
    for (oom_kills, pids_refused) in [(3, 1), (1, 8)] {
        init.send(FromInit::Limits {
            oom_kills,
            pids_refused,
        })
        .await;
    }
    init.send(FromInit::WorkloadExited {
        status: ExitStatus::Signal(9),
        restart_in_ms: Some(1000),
        code: Text::new("workload.out-of-memory"),
        workload: None,
    })
    .await;
    let exited = agent.event("workload_exited").await;
    assert_eq!(exited["code"], "workload.out-of-memory");
    let status = agent.status().await;
    let expected = json!({"oom_kills": 3, "pids_refused": 8});
    assert_eq!(status["limits"], expected);
    let (_, metrics) = agent.request("GET", "/metrics", "").await;
    let metrics = String::from_utf8(metrics).unwrap();
    assert!(
        metrics.contains("\nenclave_oom_kills_total 3\n"),
        "{metrics}"
    );
    assert!(
        metrics.contains("\nenclave_pids_refused_total 8\n"),
        "{metrics}"
    );
    let mut table = command(agent.folder.path(), "status");
    table.kill_on_drop(true);
    let table = timeout(LIMIT, output(table)).await.unwrap();
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(
        table.contains("3 processes killed for want of memory, 8 processes refused"),
        "{table}"
    );
    drop(init);
    agent.end_init(0).await;
    agent.ended().await;
}
