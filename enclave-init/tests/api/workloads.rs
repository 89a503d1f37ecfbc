//! Several workloads: their order, their ends, and what is told of them.

use std::collections::BTreeMap;
use std::fs;

use link::control::{EndCause, ExitStatus, FromAgent, FromInit, WorkloadState};
use link::logs::LogStream;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::agent::Control;
use crate::enclave::{Enclave, Image, ending_with_code, message, processes, until};

/// A workload that follows these instructions.
fn workload(name: &str, instructions: &[&str], more: &Value) -> Value {
    let command: Vec<_> = ["/bin/workload"].iter().chain(instructions).collect();
    let mut workload = json!({
        "name": name,
        "kind": "service",
        "command": command,
        "env": {},
        "working_directory": "/",
        "user": {"uid": 0, "gid": 0},
        "restart": {"policy": "never", "max": 0, "backoff": "10ms..10ms"},
        "stop_grace": "20s",
    });
    let more = more.as_object().unwrap().clone();
    workload.as_object_mut().unwrap().extend(more);
    workload
}

fn image(workloads: &[Value]) -> Image {
    Image::new(&[]).with("/workload", json!(workloads))
}

/// The names of those that were started, in their order.
fn started(enclave: &Enclave) -> Vec<String> {
    let records = enclave.records(LogStream::System).into_iter();
    let started = records.filter(|record| record.text().starts_with("workload started"));
    started.map(|record| record.workload.unwrap()).collect()
}

/// Waits until a workload is in a state, and gives what is said of it.
async fn state(control: &mut Control, wanted: &str, in_state: WorkloadState) -> String {
    message(control, |message| match message {
        FromInit::Workload {
            name,
            state,
            detail,
        } if &**name == wanted && *state == in_state => Some(detail.to_string()),
        _ => None,
    })
    .await
}

async fn ready(control: &mut Control) {
    message(control, |message| match message {
        FromInit::Ready { .. } => Some(()),
        _ => None,
    })
    .await;
}

/// Which workload has ended the enclave.
async fn ended_by(control: &mut Control) -> (EndCause, String, String, Option<String>) {
    message(control, |message| match message {
        FromInit::Ending {
            cause,
            detail,
            code,
            workload,
            ..
        } => Some((
            *cause,
            detail.to_string(),
            code.to_string(),
            workload.as_ref().map(ToString::to_string),
        )),
        _ => None,
    })
    .await
}

/// A database that is ready when it is told to, a batch, and a server.
fn application() -> [Value; 3] {
    let says = json!({"notify": true});
    [
        workload(
            "web",
            &["say serving", "catch SIGTERM", "until /end"],
            &json!({"after": ["migrate"]}),
        ),
        workload(
            "migrate",
            &["say migrating", "until /migrated", "exit 0"],
            &json!({"after": ["db"], "kind": "batch"}),
        ),
        workload(
            "db",
            &["until /listening", "notify READY=1", "catch SIGTERM"],
            &json!({"health": says}),
        ),
    ]
}

#[tokio::test]
async fn after_starts_a_workload_when_those_before_it_are_ready() {
    let (mut enclave, mut control) = image(&application()).boot().await;
    let waits = state(&mut control, "web", WorkloadState::Waiting).await;
    assert_eq!(waits, "it waits for migrate");
    enclave.line(LogStream::System, "workload started").await;
    assert_eq!(started(&enclave), ["db"]);
    fs::write(enclave.path("listening"), "").unwrap();
    enclave.said("migrating").await;
    assert_eq!(started(&enclave), ["db", "migrate"]);
    fs::write(enclave.path("migrated"), "").unwrap();
    let done = state(&mut control, "migrate", WorkloadState::Finished).await;
    assert_eq!(done, "the batch migrate ended with exit code 0");
    enclave.said("serving").await;
    until(|| caught(&enclave, "catching").len() == 2).await;
    assert_eq!(started(&enclave), ["db", "migrate", "web"]);
    let of: BTreeMap<_, _> = enclave
        .records(LogStream::Application)
        .into_iter()
        .map(|record| (record.text(), record.workload.unwrap()))
        .collect();
    assert_eq!((&*of["migrating"], &*of["serving"]), ("migrate", "web"));

    // They stop in reverse, each when those after it have ended.
    control.send(FromAgent::Shutdown { grace_ms: None }).await;
    enclave.said("caught SIGTERM").await;
    assert_eq!(caught(&enclave, "caught SIGTERM"), ["web"]);
    fs::write(enclave.path("end"), "").unwrap();
    let (cause, _, code) = ending_with_code(&mut control).await;
    assert_eq!((cause, &*code), (EndCause::Shutdown, ""));
    assert_eq!(enclave.ended().await.0, 0);
    assert_eq!(caught(&enclave, "caught SIGTERM"), ["web", "db"]);
}

/// Which workloads have said this.
fn caught(enclave: &Enclave, text: &str) -> Vec<String> {
    let records = enclave.records(LogStream::Application).into_iter();
    let said = records.filter(|record| record.text() == text);
    said.map(|record| record.workload.unwrap()).collect()
}

#[tokio::test]
async fn essential_workload_that_dies_ends_the_enclave_and_its_exit_names_it() {
    let workloads = [
        workload("web", &["until /die", "exit 3"], &json!({})),
        workload("db", &["say db", "handle SIGTERM"], &json!({})),
    ];
    let (mut enclave, mut control) = image(&workloads).boot().await;
    ready(&mut control).await;
    enclave.said("handling").await;
    fs::write(enclave.path("die"), "").unwrap();
    let (cause, detail, code, workload) = ended_by(&mut control).await;
    assert_eq!(cause, EndCause::WorkloadExited(ExitStatus::Code(3)));
    assert_eq!(detail, "the workload web ended with exit code 3");
    assert_eq!(
        (&*code, workload.as_deref()),
        ("workload.exit-code", Some("web"))
    );
    assert_eq!(enclave.ended().await.0, 1);
    // The other was asked to stop, and had its grace.
    enclave.said("handled SIGTERM").await;
}

#[tokio::test]
async fn essential_is_not_a_sidecar_that_gives_up() {
    let restart = json!({"policy": "on-failure", "max": 2, "backoff": "10ms..10ms"});
    let workloads = [
        workload("web", &["say serving", "handle SIGTERM"], &json!({})),
        workload(
            "metrics",
            &["say try", "exit 1"],
            &json!({"essential": false, "restart": restart}),
        ),
    ];
    let (mut enclave, mut control) = image(&workloads).boot().await;
    let how = state(&mut control, "metrics", WorkloadState::Failed).await;
    assert_eq!(how, "the workload metrics ended with exit code 1");
    let line = enclave
        .line(LogStream::Errors, "the enclave goes on without it")
        .await;
    assert!(line.starts_with(&how), "{line}");
    let tries = enclave.lines(LogStream::Application).into_iter();
    assert_eq!(tries.filter(|line| line == "try").count(), 3);
    enclave.said("handling").await;
    control.send(FromAgent::Shutdown { grace_ms: None }).await;
    assert_eq!(ending_with_code(&mut control).await.0, EndCause::Shutdown);
    assert_eq!(enclave.ended().await.0, 0);
}

#[tokio::test]
async fn after_a_workload_that_is_never_ready_nothing_is_started() {
    let health = json!({"notify": true, "ready_within": "300ms"});
    let workloads = [
        workload("db", &["wait"], &json!({"health": health})),
        workload("web", &["say serving", "wait"], &json!({"after": ["db"]})),
    ];
    let (mut enclave, mut control) = image(&workloads).boot().await;
    let (cause, detail, code, workload) = ended_by(&mut control).await;
    assert_eq!(cause, EndCause::BootFailed);
    assert_eq!(
        (&*code, workload.as_deref()),
        ("workload.not-ready", Some("db"))
    );
    assert!(
        detail.starts_with("the workload db was not ready within 300ms"),
        "{detail}"
    );
    enclave.ended().await;
    assert_eq!(started(&enclave), ["db"]);
    assert!(enclave.lines(LogStream::Application).is_empty());
}

#[tokio::test]
async fn after_a_workload_that_has_given_up_an_essential_one_ends_the_enclave() {
    let workloads = [
        workload(
            "seed",
            &["exit 1"],
            &json!({"essential": false, "kind": "batch"}),
        ),
        workload("web", &["say serving", "wait"], &json!({"after": ["seed"]})),
    ];
    let (mut enclave, mut control) = image(&workloads).boot().await;
    let (cause, detail, code, workload) = ended_by(&mut control).await;
    assert_eq!(cause, EndCause::BootFailed);
    assert_eq!(
        (&*code, workload.as_deref()),
        ("workload.start", Some("web"))
    );
    assert_eq!(
        detail,
        "the workload web cannot be started: seed, after which it is started, has ended"
    );
    enclave.ended().await;
}

#[tokio::test]
async fn batches_that_have_all_succeeded_end_the_enclave() {
    let batch = |name: &str, after: &[&str]| {
        workload(
            name,
            &["say done", "exit 0"],
            &json!({"kind": "batch", "after": after}),
        )
    };
    let (mut enclave, mut control) = image(&[batch("second", &["first"]), batch("first", &[])])
        .boot()
        .await;
    let (cause, detail, code, workload) = ended_by(&mut control).await;
    assert_eq!(cause, EndCause::WorkloadExited(ExitStatus::Code(0)));
    assert_eq!((&*detail, &*code), ("every workload has ended", ""));
    assert_eq!(workload, None);
    assert_eq!(enclave.ended().await.0, 0);
    assert_eq!(started(&enclave), ["first", "second"]);
}

#[tokio::test]
async fn stop_grace_that_the_agent_gives_is_that_of_all_levels_together() {
    let stubborn = |name: &str, after: &[&str]| {
        let more = json!({"after": after, "stop_grace": "100s"});
        workload(name, &["ignore SIGTERM", "wait"], &more)
    };
    let workloads = [stubborn("db", &[]), stubborn("web", &["db"])];
    let (mut enclave, mut control) = image(&workloads).boot().await;
    ready(&mut control).await;
    let begun = Instant::now();
    control
        .send(FromAgent::Shutdown {
            grace_ms: Some(400),
        })
        .await;
    assert_eq!(ending_with_code(&mut control).await.0, EndCause::Shutdown);
    // Not more, but for what the machine takes: by far less than their own.
    assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
    enclave.ended().await;
    for name in ["web", "db"] {
        let text = format!("the workload {name} did not stop within 200ms of SIGTERM");
        enclave.line(LogStream::Errors, &text).await;
    }
}

#[tokio::test]
async fn workloads_have_processes_of_their_own_and_what_they_leave_ends_with_them() {
    for init in [false, true] {
        let workloads = [
            workload(
                "web",
                &["leave wait", "say left", "until /die", "exit 0"],
                &json!({"essential": false, "init": init}),
            ),
            workload("db", &["say db", "handle SIGTERM"], &json!({"init": init})),
        ];
        let (mut enclave, mut control) = image(&workloads).boot().await;
        enclave.said("left").await;
        enclave.said("handling").await;
        let before = processes(enclave.folder()).len();
        fs::write(enclave.path("die"), "").unwrap();
        let how = state(&mut control, "web", WorkloadState::Finished).await;
        assert_eq!(how, "the workload web ended with exit code 0");
        // Only the other one is left, and with `init` PID 1 of its namespace.
        until(|| processes(enclave.folder()).len() == before - 2).await;
        let pid1 = enclave.pid1();
        let children = format!("/proc/{pid1}/task/{pid1}/children");
        let left = if init { 2 } else { 1 };
        let count = || {
            fs::read_to_string(&children)
                .unwrap()
                .split_whitespace()
                .count()
        };
        until(|| count() == left).await;
        control.send(FromAgent::Shutdown { grace_ms: None }).await;
        assert_eq!(ending_with_code(&mut control).await.0, EndCause::Shutdown);
        enclave.ended().await;
    }
}
