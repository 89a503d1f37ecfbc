//! Several workloads: their order, their ends, and what is told of them.

use std::collections::BTreeMap;
use std::fs;

use link::control::{EndCause, ExitStatus, FromAgent, FromInit, HealthState, WorkloadState};
use link::logs::LogStream;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::agent::Control;
use crate::enclave::{
    Enclave, Image, ending_with_code, following, message, processes, ready, until,
};
use crate::sealed_secrets::{seal_and_put, secret as sealed};

/// A workload that follows these instructions.
fn workload(name: &str, instructions: &[&str], more: &Value) -> Value {
    let mut workload = following(instructions);
    workload["name"] = name.into();
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

/// Waits until the enclave is ready and a workload runs, in whichever order both are told.
async fn ready_and_running(control: &mut Control, wanted: &str) {
    let (mut is_ready, mut runs) = (false, false);
    message(control, |message| {
        match message {
            FromInit::Ready { .. } => is_ready = true,
            FromInit::Workload { name, state, .. } if &**name == wanted => {
                runs = *state == WorkloadState::Running;
            }
            _ => {}
        }
        (is_ready && runs).then_some(())
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
    assert_eq!(
        (&*detail, &*code),
        ("every essential workload has ended", "")
    );
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
    // What web has not used is db's.
    let text = "the workload web did not stop within 200ms of SIGTERM";
    enclave.line(LogStream::Errors, text).await;
    let text = "the workload db did not stop within";
    enclave.line(LogStream::Errors, text).await;
}

#[tokio::test]
async fn stop_grace_of_those_that_have_ended_is_that_of_the_others() {
    let grace = |name: &str, after: &[&str], more: &Value| {
        let mut rest = json!({"after": after, "stop_grace": "100s"});
        let more = more.as_object().unwrap().clone();
        rest.as_object_mut().unwrap().extend(more);
        workload(name, &["ignore SIGTERM", "wait"], &rest)
    };
    let mut migrate = grace("migrate", &["db"], &json!({"kind": "batch"}));
    migrate["command"] = json!(["/bin/workload", "exit 0"]);
    let workloads = [
        grace("db", &[], &json!({})),
        migrate,
        grace("web", &["migrate"], &json!({})),
        grace("beside", &[], &json!({})),
    ];
    let (mut enclave, mut control) = image(&workloads).boot().await;
    ready(&mut control).await;
    let grace_ms = Some(600);
    control.send(FromAgent::Shutdown { grace_ms }).await;
    assert_eq!(ending_with_code(&mut control).await.0, EndCause::Shutdown);
    enclave.ended().await;
    for text in [
        "web did not stop within 300ms",
        "beside did not stop within 600ms",
    ] {
        enclave.line(LogStream::Errors, text).await;
    }
}

#[tokio::test]
async fn stop_grace_of_a_shutdown_hurries_those_that_stop_already() {
    let workloads = [
        workload("web", &["until /die", "exit 3"], &json!({})),
        workload(
            "db",
            &["say db", "ignore SIGTERM", "wait"],
            &json!({"stop_grace": "100s"}),
        ),
    ];
    let (mut enclave, mut control) = image(&workloads).boot().await;
    ready(&mut control).await;
    enclave.said("db").await;
    fs::write(enclave.path("die"), "").unwrap();
    enclave
        .line(LogStream::Errors, "the enclave ends with it")
        .await;
    let grace_ms = Some(400);
    let begun = Instant::now();
    control.send(FromAgent::Shutdown { grace_ms }).await;
    let (cause, _, code, workload) = ended_by(&mut control).await;
    assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
    assert_eq!(cause, EndCause::WorkloadExited(ExitStatus::Code(3)));
    assert_eq!(
        (&*code, workload.as_deref()),
        ("workload.exit-code", Some("web"))
    );
    enclave.ended().await;
}

#[tokio::test]
async fn health_is_not_well_between_the_end_of_an_essential_workload_and_the_enclaves() {
    let workloads = [
        workload("web", &["until /die", "exit 3"], &json!({})),
        workload(
            "db",
            &["say db", "ignore SIGTERM", "wait"],
            &json!({"stop_grace": "2s"}),
        ),
    ];
    let (mut enclave, mut control) = image(&workloads).boot().await;
    ready(&mut control).await;
    enclave.said("db").await;
    fs::write(enclave.path("die"), "").unwrap();
    let mut said = Vec::new();
    message(&mut control, |message| match message {
        FromInit::Health { state, detail } => {
            said.push((*state, detail.to_string()));
            None
        }
        FromInit::Ending { .. } => Some(()),
        _ => None,
    })
    .await;
    let is_well = |(state, _): &(HealthState, String)| *state == HealthState::Healthy;
    let after: Vec<_> = said.into_iter().skip_while(is_well).collect();
    assert!(!after.iter().any(is_well), "{after:?}");
    let why = "web: the workload web ended with exit code 3";
    assert_eq!(
        after.last(),
        Some(&(HealthState::Unhealthy, why.to_owned()))
    );
    enclave.ended().await;
}

#[tokio::test]
async fn ready_is_an_enclave_whose_workloads_are_all_ready_at_once() {
    let restart = json!({"policy": "on-failure", "max": 5, "backoff": "10ms..10ms"});
    let workloads = [
        // Ready, and gone again.
        workload(
            "web",
            &[
                "first notify READY=1",
                "first until /die",
                "first exit 1",
                "until /web",
                "notify READY=1",
                "wait",
            ],
            &json!({"health": {"notify": true}, "restart": restart}),
        ),
        workload(
            "db",
            &["until /db", "notify READY=1", "say ready", "wait"],
            &json!({"health": {"notify": true}}),
        ),
    ];
    let (enclave, mut control) = image(&workloads).boot().await;
    state(&mut control, "web", WorkloadState::Running).await;
    fs::write(enclave.path("die"), "").unwrap();
    state(&mut control, "web", WorkloadState::Starting).await;
    fs::write(enclave.path("db"), "").unwrap();
    let mut was_ready = false;
    let db = message(&mut control, |message| match message {
        FromInit::Ready { .. } => {
            was_ready = true;
            None
        }
        FromInit::Workload { name, state, .. } if &**name == "db" => {
            (*state == WorkloadState::Running).then_some(())
        }
        _ => None,
    });
    db.await;
    enclave.said("ready").await;
    assert!(!was_ready);
    fs::write(enclave.path("web"), "").unwrap();
    ready(&mut control).await;
}

#[tokio::test]
async fn shutdown_is_what_ended_the_enclave_although_a_workload_fails_meanwhile() {
    let workloads = [
        workload(
            "web",
            &["catch SIGTERM", "until /end"],
            &json!({"after": ["db"]}),
        ),
        workload("db", &["say db", "until /die", "exit 1"], &json!({})),
    ];
    let (mut enclave, mut control) = image(&workloads).boot().await;
    ready(&mut control).await;
    enclave.said("catching").await;
    control.send(FromAgent::Shutdown { grace_ms: None }).await;
    enclave.said("caught SIGTERM").await;
    fs::write(enclave.path("die"), "").unwrap();
    let line = "db ended with exit code 1, while the enclave was ending";
    enclave.line(LogStream::Errors, line).await;
    fs::write(enclave.path("end"), "").unwrap();
    let (cause, _, code, workload) = ended_by(&mut control).await;
    assert_eq!((cause, &*code, workload), (EndCause::Shutdown, "", None));
    assert_eq!(enclave.ended().await.0, 0);
}

#[tokio::test]
async fn essential_batches_that_have_succeeded_end_the_enclave_and_the_sidecar() {
    let workloads = [
        workload("batch", &["until /go", "exit 0"], &json!({"kind": "batch"})),
        workload(
            "sidecar",
            &["say here", "handle SIGTERM"],
            &json!({"essential": false}),
        ),
    ];
    let (mut enclave, mut control) = image(&workloads).boot().await;
    enclave.said("handling").await;
    fs::write(enclave.path("go"), "").unwrap();
    let (cause, detail, code, _) = ended_by(&mut control).await;
    assert_eq!(cause, EndCause::WorkloadExited(ExitStatus::Code(0)));
    assert_eq!(
        (&*detail, &*code),
        ("every essential workload has ended", "")
    );
    assert_eq!(enclave.ended().await.0, 0);
    enclave.said("handled SIGTERM").await;
}

#[tokio::test]
async fn notify_and_the_local_api_hear_a_workload_of_itself_alone() {
    let say = r#"/v1/readiness {"state": "ready"}"#;
    let says = json!({"health": {"notify": true}});
    let workloads = [
        workload(
            "web",
            &[
                "list /run/enclave",
                "notify READY=1",
                &format!("request tcp POST {say}"),
                "mark /asked",
                "handle SIGTERM",
            ],
            &says,
        ),
        workload(
            "db",
            &[
                "until /asked",
                "request unix GET /v1/readiness ",
                &format!("request unix POST {say}"),
                "handle SIGTERM",
            ],
            &says,
        ),
    ];
    let (enclave, mut control) = image(&workloads).boot().await;
    ready_and_running(&mut control, "db").await;
    until(|| enclave.answers().len() == 3).await;
    let answers = enclave.answers();
    let found: Vec<_> = answers.iter().map(|(status, _)| *status).collect();
    assert_eq!(found, [409, 200, 204]);
    let body = |index: usize| serde_json::from_slice::<Value>(&answers[index].1).unwrap();
    assert_eq!(body(0)["code"], "speaker-unknown");
    // The other one has said READY=1 by then, and twice.
    assert_eq!(body(1)["state"], "starting");
    let own = enclave.said("list /run/enclave").await;
    assert_eq!(
        own,
        "list /run/enclave: api.sock notify.sock runtime-config"
    );
}

#[tokio::test]
async fn run_enclave_is_not_the_workloads_to_change() {
    let workloads = [workload(
        "web",
        &[
            "write /run/enclave/new",
            "write /run/enclave/runtime-config",
            "say tried",
            "handle SIGTERM",
        ],
        &json!({}),
    )];
    let (enclave, mut control) = image(&workloads).boot().await;
    ready(&mut control).await;
    enclave.said("tried").await;
    let lines = enclave.lines(LogStream::Application);
    let tries: Vec<_> = lines
        .iter()
        .filter(|line| line.contains("/run/enclave"))
        .collect();
    assert_eq!(tries.len(), 2, "{lines:?}");
    let are_refused = tries.iter().all(|line| line.contains("EROFS"));
    assert!(are_refused, "{tries:?}");
}

#[tokio::test]
async fn on_change_is_for_the_workload_that_it_names() {
    let secret = json!({
        "file": {"path": "/run/secrets/password", "mode": "0444"},
        "on_change": {"signal": "SIGHUP", "workload": "web"},
        "on_failure": "continue",
    });
    let secrets = json!([sealed("password", Some("50ms"), &secret)]);
    let workloads = [
        workload("db", &["say db", "handle SIGTERM"], &json!({})),
        workload(
            "web",
            &["catch SIGHUP", "say changed", "handle SIGTERM"],
            &json!({}),
        ),
    ];
    let image = image(&workloads).with("/secrets", secrets);
    let (mut enclave, mut control) = image.boot().await;
    ready(&mut control).await;
    enclave.said("catching").await;
    enclave.said("db").await;
    let put = seal_and_put(&enclave, &mut control, "password", b"hunter2").await;
    assert_eq!(put, Ok(()));
    enclave.said("changed").await;
    // The signal would have ended the other one, which has no handler.
    control.send(FromAgent::Shutdown { grace_ms: None }).await;
    assert_eq!(ending_with_code(&mut control).await.0, EndCause::Shutdown);
    enclave.ended().await;
    assert_eq!(caught(&enclave, "caught SIGHUP"), ["web"]);
    assert_eq!(started(&enclave).len(), 2);
}

#[tokio::test]
async fn on_change_that_finds_nobody_is_in_the_log() {
    let secret = json!({
        "file": {"path": "/run/secrets/password", "mode": "0444"},
        "on_change": {"command": ["/bin/workload", "say changed"], "workload": "web"},
        "on_failure": "continue",
    });
    let secrets = json!([sealed("password", Some("50ms"), &secret)]);
    let workloads = [
        workload("db", &["say db", "handle SIGTERM"], &json!({})),
        workload("web", &["exit 1"], &json!({"essential": false})),
    ];
    let image = image(&workloads).with("/secrets", secrets);
    let (enclave, mut control) = image.boot().await;
    state(&mut control, "web", WorkloadState::Failed).await;
    let put = seal_and_put(&enclave, &mut control, "password", b"hunter2").await;
    assert_eq!(put, Ok(()));
    let line = "the workload web has ended: a signal or command for it is lost";
    enclave.line(LogStream::Errors, line).await;
}

#[tokio::test]
async fn restart_that_fails_leaves_nothing_behind_and_is_tried_again() {
    let restart = json!({"policy": "always", "max": 2, "backoff": "10ms..10ms"});
    let workloads = [
        workload(
            "web",
            &["until /go", "exit 0"],
            &json!({"essential": false, "init": true, "restart": restart}),
        ),
        workload("db", &["say db", "handle SIGTERM"], &json!({})),
    ];
    let (mut enclave, mut control) = image(&workloads).boot().await;
    ready(&mut control).await;
    enclave.said("handling").await;
    fs::remove_file(enclave.path("bin/workload")).unwrap();
    fs::write(enclave.path("go"), "").unwrap();
    let how = state(&mut control, "web", WorkloadState::Failed).await;
    assert!(how.contains("/bin/workload: "), "{how}");
    let tries = enclave.lines(LogStream::Errors).into_iter();
    assert_eq!(tries.filter(|line| line.contains("restart in")).count(), 2);
    // Of the first, PID 1 and the program, nothing is left, nor PID 1 of those that failed.
    let pid1 = enclave.pid1();
    let children = format!("/proc/{pid1}/task/{pid1}/children");
    let count = || {
        let children = fs::read_to_string(&children).unwrap();
        children.split_whitespace().count()
    };
    until(|| count() == 1).await;
    control.send(FromAgent::Shutdown { grace_ms: None }).await;
    assert_eq!(ending_with_code(&mut control).await.0, EndCause::Shutdown);
    enclave.ended().await;
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
