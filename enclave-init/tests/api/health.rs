//! What a workload's health is judged by, and what follows.

use std::fs;

use link::control::{EndCause, ExitStatus, FromAgent, FromInit, HealthState};
use link::logs::LogStream;
use serde_json::{Value, json};

use crate::agent::Control;
use crate::enclave::{Enclave, Image, ending, ending_with_code, message, ready};

/// A probe that reads its verdict from a file of the workload's.
fn judged(more: &Value) -> Value {
    let mut health = json!({"command": ["/bin/workload", "judge /verdict"], "interval": "10ms"});
    let table = health.as_object_mut().unwrap();
    table.extend(more.as_object().unwrap().clone());
    health
}

/// The verdict, which is never half written.
fn write(enclave: &Enclave, verdict: &str) {
    fs::write(enclave.path("next"), verdict).unwrap();
    fs::rename(enclave.path("next"), enclave.path("verdict")).unwrap();
}

async fn health(control: &mut Control, wanted: HealthState) -> String {
    message(control, |message| match message {
        FromInit::Health { state, detail }
            if *state == wanted && !(detail.is_empty() && wanted == HealthState::Starting) =>
        {
            Some(detail.to_string())
        }
        _ => None,
    })
    .await
}

/// The words of a healthy workload.
async fn healthy_saying(control: &mut Control) -> String {
    message(control, |message| match message {
        FromInit::Health {
            state: HealthState::Healthy,
            detail,
        } if !detail.is_empty() => Some(detail.to_string()),
        _ => None,
    })
    .await
}

#[tokio::test]
async fn health_by_a_command_makes_ready_and_unhealthy() {
    let image = Image::new(&["wait"]).with("/workload/health", judged(&json!({"failures": 2})));
    let (enclave, mut control) = image.boot().await;
    let reason = health(&mut control, HealthState::Starting).await;
    assert_eq!(reason, "it ended with exit code 1: no verdict");
    write(&enclave, "good");
    ready(&mut control).await;
    write(&enclave, "bad \u{1b}[1m");
    let reason = health(&mut control, HealthState::Unhealthy).await;
    assert_eq!(reason, "it ended with exit code 1: bad \\u{1b}[1m");
    let failed = "probe failed, 1 of 2 in a row: it ended with exit code 1";
    enclave.line(LogStream::Health, failed).await;
    write(&enclave, "good");
    health(&mut control, HealthState::Healthy).await;
}

#[tokio::test]
async fn health_tells_no_output_that_may_not_leave() {
    for (logs, kept) in [
        (json!({"release": "never"}), "it ended with exit code 1"),
        (
            json!({"release": "always", "redact": [{"pattern": "hush[a-z]*", "with": "***"}]}),
            "it ended with exit code 1: ***",
        ),
    ] {
        let image = Image::new(&["wait"])
            .file("verdict", "hushhush")
            .with("/logs", logs)
            .with("/workload/health", judged(&json!({})));
        let (_enclave, mut control) = image.boot().await;
        let reason = health(&mut control, HealthState::Starting).await;
        assert_eq!(reason, kept);
    }
}

#[tokio::test]
async fn health_whose_command_cannot_be_run_says_why() {
    for (command, part) in [
        (
            json!(["/bin/missing"]),
            "exit code 127: /bin/missing: No such file",
        ),
        (
            json!(["/verdict"]),
            "exit code 126: /verdict: Permission denied",
        ),
    ] {
        let image = Image::new(&["wait"])
            .file("verdict", "")
            .with("/workload/health", json!({"command": command}));
        let (_enclave, mut control) = image.boot().await;
        let reason = health(&mut control, HealthState::Starting).await;
        assert!(reason.contains(part), "{reason}");
    }
}

#[tokio::test]
async fn health_deadline_ends_an_enclave_that_is_not_ready() {
    for (probe, last) in [
        (json!({"tcp": 9000}), "refused"),
        (
            json!({"command": ["/bin/workload", "judge /verdict"]}),
            "no verdict",
        ),
        // It is asked all the time, and never answers.
        (json!({"command": ["/bin/workload", "wait"]}), "no probe"),
    ] {
        let mut health = probe;
        health["ready_within"] = json!("1s");
        let image = Image::new(&["handle SIGTERM", "say goodbye"])
            .with("/workload/health", health)
            .restarted(5);
        let (mut enclave, mut control) = image.boot().await;
        let (cause, detail, code) = ending_with_code(&mut control).await;
        assert_eq!(
            (cause, &*code),
            (EndCause::BootFailed, "workload.not-ready")
        );
        let start = "the workload was not ready within 1s, which is workload.health.ready_within: ";
        assert!(detail.starts_with(start), "{detail}");
        assert!(detail.contains(last), "{detail}");
        assert_eq!(enclave.ended().await.0, 1);
        // It was asked to stop.
        enclave.said("goodbye").await;
    }
}

#[tokio::test]
async fn health_restarts_an_unhealthy_workload_and_counts_it() {
    let restart = json!({"policy": "on-failure", "max": 1, "backoff": "10ms..1s"});
    let health = judged(&json!({"failures": 1, "on_unhealthy": "restart"}));
    let image = Image::new(&["say started", "handle SIGTERM", "exit 0"])
        .file("verdict", "good")
        .with("/workload/restart", restart)
        .with("/workload/health", health);
    let (mut enclave, mut control) = image.boot().await;
    ready(&mut control).await;
    enclave.said("handling").await;
    write(&enclave, "bad");
    let exited = |message: &FromInit| match message {
        FromInit::WorkloadExited {
            status,
            restart_in_ms,
            code,
            ..
        } => {
            assert_eq!(code.to_string(), "workload.unhealthy");
            Some((*status, *restart_in_ms))
        }
        _ => None,
    };
    let (status, delay) = message(&mut control, exited).await;
    assert_eq!((status, delay.is_some()), (ExitStatus::Code(0), true));
    write(&enclave, "good");
    self::health(&mut control, HealthState::Healthy).await;
    // It may not have set its handler yet, and ends by the signal then.
    write(&enclave, "bad");
    assert_eq!(message(&mut control, exited).await.1, None);
    let (cause, detail, code) = ending_with_code(&mut control).await;
    assert!(matches!(cause, EndCause::WorkloadExited(_)), "{cause:?}");
    assert_eq!(
        detail,
        "the workload is unhealthy: it ended with exit code 1: bad"
    );
    assert_eq!(code, "workload.unhealthy");
    // However well it has ended.
    assert_eq!(enclave.ended().await.0, 1);
}

#[tokio::test]
async fn health_ends_an_enclave_whose_workload_is_not_to_go_on() {
    let health = judged(&json!({"failures": 2, "on_unhealthy": "end"}));
    let image = Image::new(&["handle SIGTERM", "exit 0"])
        .file("verdict", "good")
        .with("/workload/health", health)
        .restarted(5);
    let (mut enclave, mut control) = image.boot().await;
    ready(&mut control).await;
    enclave.said("handling").await;
    write(&enclave, "bad");
    let (cause, _, code) = ending_with_code(&mut control).await;
    assert_eq!(cause, EndCause::WorkloadExited(ExitStatus::Code(0)));
    assert_eq!(code, "workload.unhealthy");
    assert_eq!(enclave.ended().await.0, 1);
    enclave.said("handled SIGTERM").await;
}

#[tokio::test]
async fn notify_makes_ready_and_its_status_is_told() {
    let instructions = [
        "notify nonsense",
        "notify STATUS=loading 40%",
        "until /go",
        "notify STATUS=serving;READY=1",
        "wait",
    ];
    for uid in [0, 1000] {
        let image = Image::new(&instructions)
            .with("/workload/user", json!({"uid": uid, "gid": uid}))
            .with("/workload/health", json!({"notify": true}));
        let (enclave, mut control) = image.boot().await;
        let says = health(&mut control, HealthState::Starting).await;
        assert_eq!(says, "it says: loading 40%");
        fs::write(enclave.path("go"), "").unwrap();
        ready(&mut control).await;
        assert_eq!(healthy_saying(&mut control).await, "it says: serving");
    }
}

#[tokio::test]
async fn notify_over_the_local_api_is_as_good_as_the_socket() {
    let say = |body: &str| format!("request unix POST /v1/readiness {body}");
    let instructions = [
        "request tcp GET /v1/readiness",
        &say("{\"status\":\"loading 40%\"}"),
        "until /go",
        &say("{\"state\":\"ready\",\"status\":\"serving\"}"),
        "until /on",
        "request tcp GET /v1/readiness",
        &say("{\"state\":\"stopping\"}"),
        "wait",
    ];
    let measured = json!({"notify": true, "watchdog": "2s", "on_unhealthy": "end"});
    let image = Image::new(&instructions)
        .with("/workload/stop_grace", json!("300ms"))
        .with("/workload/health", measured);
    let (mut enclave, mut control) = image.boot().await;
    let says = health(&mut control, HealthState::Starting).await;
    assert_eq!(says, "it says: loading 40%");
    fs::write(enclave.path("go"), "").unwrap();
    ready(&mut control).await;
    assert_eq!(healthy_saying(&mut control).await, "it says: serving");
    fs::write(enclave.path("on"), "").unwrap();
    let (_, detail, code) = ending_with_code(&mut control).await;
    assert_eq!(code, "workload.unhealthy");
    assert!(detail.contains("has said STOPPING=1"), "{detail}");
    enclave.ended().await;
    let answers = enclave.answers();
    let state = |index: usize| -> Value { serde_json::from_slice(&answers[index].1).unwrap() };
    let starting = json!({"state": "starting", "detail": "", "restarts": 0, "last_end": null});
    assert_eq!(state(0), starting);
    let healthy =
        json!({"state": "healthy", "detail": "it says: serving", "restarts": 0, "last_end": null});
    assert_eq!(state(3), healthy);
    let heard = [1, 2, 4].map(|index| answers[index].0);
    assert_eq!(heard, [204; 3]);
}

#[tokio::test]
async fn notify_over_the_local_api_is_forgotten_with_the_run() {
    let health = json!({"notify": true, "ready_within": "2s"});
    let instructions = [
        "second request unix GET /v1/readiness",
        "first request unix POST /v1/readiness {\"state\":\"ready\"}",
        "first exit 3",
        "wait",
    ];
    let image = Image::new(&instructions)
        .with("/workload/health", health)
        .restarted(5);
    let (mut enclave, mut control) = image.boot().await;
    let (_, detail, code) = ending_with_code(&mut control).await;
    assert_eq!(code, "workload.not-ready", "{detail}");
    enclave.ended().await;
    let answers = enclave.answers();
    let state: Value = serde_json::from_slice(&answers[1].1).unwrap();
    assert_eq!(
        (&state["state"], &state["restarts"]),
        (&json!("starting"), &json!(1))
    );
    assert_eq!(state["last_end"], "the workload ended with exit code 3");
}

#[tokio::test]
async fn notify_and_the_local_api_do_not_wait_for_what_is_passed_to_them() {
    for how in ["notify", "api", "api-later"] {
        let instructions = [
            &format!("linger {how}"),
            "request tcp GET /v1/random?bytes=1",
            "request unix GET /v1/random?bytes=1",
            "handle SIGTERM",
        ];
        let image = Image::new(&instructions).with("/workload/health", json!({"notify": true}));
        let (mut enclave, mut control) = image.boot().await;
        if how != "api-later" {
            enclave.said("passed true").await;
        }
        enclave.said("handling").await;
        let answers = enclave.answers();
        assert!(
            answers.iter().all(|(status, _)| *status == 200),
            "{answers:?}"
        );
        control.send(FromAgent::Shutdown { grace_ms: None }).await;
        assert_eq!(ending(&mut control).await.0, EndCause::Shutdown);
        enclave.ended().await;
        enclave.said("handled SIGTERM").await;
    }
}

#[tokio::test]
async fn notify_deadline_is_that_of_probes() {
    let health = json!({"notify": true, "ready_within": "300ms"});
    let image = Image::new(&["notify READY=0", "wait"]).with("/workload/health", health);
    let (mut enclave, mut control) = image.boot().await;
    let (cause, detail, code) = ending_with_code(&mut control).await;
    assert_eq!(
        (cause, &*code),
        (EndCause::BootFailed, "workload.not-ready")
    );
    assert!(detail.contains("it has not said READY=1"), "{detail}");
    enclave.ended().await;
}

#[tokio::test]
async fn notify_watchdog_restarts_a_silent_workload_that_has_to_be_ready_anew() {
    let health = json!({
        "notify": true,
        "watchdog": "400ms",
        "ready_within": "2s",
        "on_unhealthy": "restart",
    });
    // The second run says nothing more. What the first has said at its end, when nobody listened
    // any more, does not count for it.
    let instructions = [
        "first notify READY=1",
        "first handle SIGTERM",
        "second wait",
        "notify READY=1",
    ];
    let image = Image::new(&instructions)
        .with("/workload/health", health)
        .restarted(5);
    let (mut enclave, mut control) = image.boot().await;
    ready(&mut control).await;
    let (_, detail, code) = ending_with_code(&mut control).await;
    assert_eq!(code, "workload.not-ready", "{detail}");
    enclave.ended().await;
    let unhealthy = "unhealthy: it has not said WATCHDOG=1 for 400ms";
    enclave.line(LogStream::Health, unhealthy).await;
}

#[tokio::test]
async fn notify_watchdog_is_kept_by_a_workload_that_says_so() {
    let health = json!({"notify": true, "watchdog": "800ms", "on_unhealthy": "end"});
    let instructions = ["notify READY=1", "beat /silence", "wait"];
    let image = Image::new(&instructions).with("/workload/health", health);
    let (mut enclave, mut control) = image.boot().await;
    ready(&mut control).await;
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    assert!(enclave.launcher.try_wait().unwrap().is_none());
    fs::write(enclave.path("silence"), "").unwrap();
    let (_, detail, code) = ending_with_code(&mut control).await;
    assert_eq!(code, "workload.unhealthy");
    let reason = "the workload is unhealthy: it has not said WATCHDOG=1 for 800ms";
    assert_eq!(detail, reason);
    enclave.ended().await;
}

#[tokio::test]
async fn notify_of_the_end_puts_the_watchdog_off_for_the_grace_alone() {
    let health = json!({"notify": true, "watchdog": "200ms", "on_unhealthy": "end"});
    let instructions = ["notify READY=1", "notify STOPPING=1", "wait"];
    let image = Image::new(&instructions)
        .with("/workload/stop_grace", json!("1s"))
        .with("/workload/health", health);
    let (mut enclave, mut control) = image.boot().await;
    let (_, detail, code) = ending_with_code(&mut control).await;
    assert_eq!(code, "workload.unhealthy");
    let reason = "the workload is unhealthy: it has said STOPPING=1 and has not ended within 1s, which is workload.stop_grace";
    assert_eq!(detail, reason);
    enclave.ended().await;
}

#[tokio::test]
async fn notify_status_takes_no_reasons_place() {
    let health = json!({"notify": true, "watchdog": "300ms"});
    let instructions = [
        "notify READY=1",
        "until /go",
        "notify STATUS=well",
        "until /on",
        "notify WATCHDOG=1",
        "wait",
    ];
    let image = Image::new(&instructions).with("/workload/health", health);
    let (enclave, mut control) = image.boot().await;
    let reason = "it has not said WATCHDOG=1 for 300ms";
    assert_eq!(
        self::health(&mut control, HealthState::Unhealthy).await,
        reason
    );
    fs::write(enclave.path("go"), "").unwrap();
    // Longer than a status waits for another.
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    fs::write(enclave.path("on"), "").unwrap();
    let told = message(&mut control, |message| match message {
        FromInit::Health { state, detail } if detail.contains("well") => Some(*state),
        _ => None,
    });
    assert_eq!(told.await, HealthState::Healthy);
}
