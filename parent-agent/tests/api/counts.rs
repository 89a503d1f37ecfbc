//! What an enclave has counted in its whole life is told once, whoever is its agent.

use link::Text;
use link::control::{ClockState, ExitStatus, FromInit, Loss, LossReason, Losses, PlaceCounts};
use link::kms::{Calls, Operation, Outcome};
use link::logs::LogStream;
use serde_json::{Value, json};
use tempfile::TempDir;
use test_support::cloudwatch::CloudWatch;
use tokio::time::{Duration, sleep};

use crate::agent::{Agent, Init, command, output};
use crate::attach::remembered;
use crate::image::Builder;

/// What an init tells of its enclave's life on every connection.
async fn tell(init: &mut Init, count: u64) {
    init.send(FromInit::Clock {
        state: ClockState::Synchronised,
        source: Text::new("ptp"),
        error_us: None,
        pauses: count,
        detail: Text::default(),
    })
    .await;
    init.send(FromInit::Lost {
        losses: Losses(vec![Loss {
            stream: LogStream::Application,
            reason: LossReason::QueueFull,
            records: count,
        }]),
    })
    .await;
    let places = PlaceCounts {
        refused: count,
        evicted: count,
    };
    init.send(FromInit::Places {
        egress: places,
        ingress: places,
        dropped_datagrams: count,
    })
    .await;
    init.send(FromInit::Kms {
        calls: vec![Calls {
            operation: Operation::Decrypt,
            outcome: Outcome::AccessDenied,
            count,
        }],
        open: 2,
        waiting: 1,
    })
    .await;
    init.send(FromInit::Limits {
        oom_kills: count,
        pids_refused: count,
    })
    .await;
}

async fn restarted(init: &mut Init) {
    init.send(FromInit::WorkloadExited {
        status: ExitStatus::Code(3),
        restart_in_ms: Some(1000),
        code: Text::default(),
        workload: None,
    })
    .await;
}

fn run(service: &CloudWatch, folder: TempDir) -> Agent {
    Agent::spawn_with(
        folder,
        Builder::new(&[], &[]),
        &[
            "--keep-for",
            "60s",
            "--sink",
            "cloudwatch",
            "--metrics-namespace",
            "Acme",
        ],
        &service.environment(),
    )
}

async fn attached(service: &CloudWatch, folder: TempDir) -> (Agent, Init) {
    let before = system(&folder).await.len();
    let mut agent = run(service, folder);
    agent.event("attached").await;
    // It tells of what it finds at once: what the init says now is for the next record.
    while system(&agent.folder).await.len() == before {
        sleep(Duration::from_millis(5)).await;
    }
    let init = Init::connect(&agent, 1).await;
    (agent, init)
}

async fn detached(agent: Agent, init: Init) -> TempDir {
    let detached = output(command(agent.folder.path(), "detach")).await;
    assert!(detached.status.success(), "{detached:?}");
    drop(init);
    let Agent {
        folder, mut child, ..
    } = agent;
    child.wait().await.unwrap();
    folder
}

/// The records of the stream `system`, from the spool, which has each of them once.
async fn system(folder: &TempDir) -> Vec<Value> {
    let mut logs = tokio::process::Command::new(env!("CARGO_BIN_EXE_parent-agent"));
    logs.args(["logs", "--name", "test", "--stream", "system", "--json"])
        .env("XDG_STATE_HOME", folder.path().join("logs"));
    let output = output(logs).await;
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let records = text.lines().map(|line| {
        let line: Value = serde_json::from_str(line).unwrap();
        serde_json::from_str(line["text"].as_str().unwrap()).unwrap()
    });
    records.collect()
}

/// What alarms have added up: of metrics, and of records of what went wrong.
async fn told(folder: &TempDir) -> Value {
    let records = system(folder).await;
    let sum = |of: &dyn Fn(&Value) -> Value| -> u64 {
        records
            .iter()
            .filter_map(|record| of(record).as_u64())
            .sum()
    };
    let metric = |name: &str| sum(&|record| record[name].clone());
    let incident = |name: &str| sum(&|record| record["incidents"][name].clone());
    json!({
        "metrics": [
            metric("OutOfMemoryKills"), metric("LogRecordsLost"), metric("ClockPauses"),
        ],
        "restarts": metric("Restarts"),
        "incidents": [
            incident("oom_kills"), incident("log_records_lost"), incident("pids_refused"),
        ],
    })
}

fn each(count: u64, restarts: u64) -> Value {
    json!({
        "metrics": [count, count, count],
        "restarts": restarts,
        "incidents": [count, count, count],
    })
}

#[tokio::test]
async fn counts_of_a_life_are_told_once_by_agents_that_take_over() {
    let service = CloudWatch::start().await.unwrap();
    let mut agent = run(&service, tempfile::tempdir().unwrap());
    agent.until_init_waits().await;
    let mut init = agent.boot().await;
    restarted(&mut init).await;
    tell(&mut init, 3).await;
    remembered(&agent, "\"oom_kills\":3").await;
    let folder = detached(agent, init).await;
    assert_eq!(told(&folder).await, each(3, 1));

    // It is told the same again, and a little later more.
    let (agent, mut init) = attached(&service, folder).await;
    tell(&mut init, 3).await;
    tell(&mut init, 5).await;
    restarted(&mut init).await;
    remembered(&agent, "\"restarts\":2").await;
    drop(init);
    // It had no time to tell of it.
    let folder = agent.killed().await;
    assert_eq!(told(&folder).await, each(3, 1));

    let (agent, mut init) = attached(&service, folder).await;
    tell(&mut init, 5).await;
    let folder = detached(agent, init).await;
    assert_eq!(told(&folder).await, each(5, 2));

    // What an agent has told before it was killed was told as well.
    let (agent, mut init) = attached(&service, folder).await;
    tell(&mut init, 5).await;
    tell(&mut init, 6).await;
    remembered(&agent, "\"oom_kills\":6").await;
    drop(init);
    let folder = agent.killed().await;
    let agent = run(&service, folder);
    // At its beginning it has told of what the one before has left.
    remembered(&agent, "\"incidents\":{\"restarts\":2,\"lost\":6,").await;
    let folder = agent.killed().await;
    let (agent, mut init) = attached(&service, folder).await;
    tell(&mut init, 6).await;
    drop(init);
    agent.end_init(0).await;
    let folder = agent.finished().await;
    // A pause of the clock is not remembered, but told again by the init.
    assert_eq!(told(&folder).await, each(6, 2));
}

#[tokio::test]
async fn counts_do_not_begin_anew_for_those_who_read_them() {
    let service = CloudWatch::start().await.unwrap();
    let mut agent = run(&service, tempfile::tempdir().unwrap());
    agent.until_init_waits().await;
    let mut init = agent.boot().await;
    tell(&mut init, 7).await;
    remembered(&agent, "\"oom_kills\":7").await;
    drop(init);
    let folder = agent.killed().await;
    let mut agent = run(&service, folder);
    agent.event("attached").await;
    // Before the init is back.
    let status = agent.status().await;
    assert_eq!(status["limits"], json!({"oom_kills": 7, "pids_refused": 7}));
    assert_eq!(status["init_places"]["ingress"]["refused"], 7);
    assert_eq!(status["kms"]["calls"]["Decrypt"]["access-denied"], 7);
    assert_eq!(status["logs"]["lost"]["application"]["queue-full"], 7);
    let mut init = Init::connect(&agent, 1).await;
    // And whatever it says then.
    tell(&mut init, 2).await;
    tell(&mut init, u64::MAX).await;
    tell(&mut init, 2).await;
    while agent.status().await["limits"]["oom_kills"] != u64::MAX {
        sleep(Duration::from_millis(5)).await;
    }
    let status = agent.status().await;
    assert_eq!(status["init_places"]["egress"]["evicted"], u64::MAX);
    assert_eq!(status["init_places"]["dropped_datagrams"], u64::MAX);
    assert_eq!(status["clock"]["pauses"], u64::MAX);
    let table = output(command(agent.folder.path(), "status")).await;
    assert!(table.status.success(), "{table:?}");
    let table = String::from_utf8(table.stdout).unwrap();
    let places = format!(
        "egress: the init refused {0} connections and closed {0}",
        u64::MAX
    );
    assert!(table.contains(&places), "{table}");
    drop(init);
    agent.end_init(0).await;
    agent.finished().await;
}
