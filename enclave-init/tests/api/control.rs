//! The control connection: health, readiness, reconnecting.

use std::fs;

use link::control::{FromInit, HealthState};
use link::logs::LogStream;
use nix::sys::signal::Signal;
use serde_json::json;

use crate::agent::{Agent, Behaviour};
use crate::enclave::{Image, message};

fn health(wanted: HealthState) -> impl FnMut(&FromInit) -> Option<String> {
    move |message| match message {
        FromInit::Health { state, detail } if *state == wanted => Some(detail.to_string()),
        _ => None,
    }
}

fn ready(message: &FromInit) -> Option<u64> {
    match message {
        FromInit::Ready { at_us } => Some(*at_us),
        _ => None,
    }
}

#[tokio::test]
async fn health_without_a_probe_is_ready_at_once() {
    let (enclave, mut control) = Image::new(&["wait"]).boot().await;
    message(&mut control, ready).await;
    message(&mut control, health(HealthState::Healthy)).await;
    enclave.line(LogStream::Health, "healthy").await;
}

#[tokio::test]
async fn health_probes_reach_servers_on_every_address() {
    for address in ["127.0.0.1", "0.0.0.0", "::"] {
        let probe = json!({"http": "http://127.0.0.1:8080/", "interval": "10ms"});
        let answer = format!("answer 8080 /status {address}");
        let image = Image::new(&[&answer]).with("/workload/health", probe);
        let (_enclave, mut control) = image.file("status", "200").boot().await;
        message(&mut control, health(HealthState::Healthy)).await;
    }
}

#[tokio::test]
async fn health_follows_the_probe() {
    let probe = json!({"http": "http://localhost:8080/health?deep=1", "interval": "10ms"});
    let image =
        Image::new(&["until /status", "answer 8080 /status"]).with("/workload/health", probe);
    let (enclave, mut control) = image.boot().await;
    // Not ready, and why.
    let reason = message(&mut control, |message| match message {
        FromInit::Ready { .. } => panic!("ready before anybody listens"),
        FromInit::Health { state, detail } if !detail.is_empty() => {
            Some((*state, detail.to_string()))
        }
        _ => None,
    });
    let (state, reason) = reason.await;
    assert_eq!(state, HealthState::Starting);
    assert!(reason.contains("refused"), "{reason}");

    // The workload reads one or the other, never an empty file.
    let write = |status: &str| {
        fs::write(enclave.path("next"), status).unwrap();
        fs::rename(enclave.path("next"), enclave.path("status")).unwrap();
    };
    write("503");
    let unavailable = |message: &FromInit| match message {
        FromInit::Health { detail, .. } if detail.contains("503") => Some(()),
        _ => None,
    };
    message(&mut control, unavailable).await;
    write("200");
    message(&mut control, ready).await;
    message(&mut control, health(HealthState::Healthy)).await;
    write("500");
    let reason = message(&mut control, health(HealthState::Unhealthy)).await;
    assert_eq!(reason, "it answers with status 500");
    // Not by one failure, nor by two.
    for failed in ["1 of 3", "2 of 3"] {
        let line = format!("probe failed, {failed} in a row: it answers with status 500");
        enclave.line(LogStream::Health, &line).await;
    }
    enclave
        .line(LogStream::Health, "unhealthy: it answers")
        .await;
    enclave.said("asked for /health?deep=1").await;
    write("302");
    message(&mut control, health(HealthState::Healthy)).await;
}

#[tokio::test]
async fn readiness_is_told_on_a_new_connection() {
    let (mut enclave, mut control) = Image::new(&["wait"]).boot().await;
    let at = message(&mut control, ready).await;
    let boot = control.boot.clone();
    control.hang_up().await;
    let mut again = enclave.control().await;
    assert_eq!(again.boot, boot);
    assert_eq!(message(&mut again, ready).await, at);
}

#[tokio::test]
async fn runtime_config_stays_when_a_later_agent_sends_another() {
    let image = Image::new(&["until /go", "show /run/enclave/runtime-config", "wait"])
        .agent(|agent| agent.runtime_config = b"first".to_vec());
    let (mut enclave, mut control) = image.boot().await;
    message(&mut control, ready).await;
    control.hang_up().await;
    enclave.prepared.agent.stop().await;
    let behaviour = Behaviour {
        runtime_config: b"second".to_vec(),
        ..Behaviour::default()
    };
    enclave.prepared.agent = Agent::start(&enclave.folder().join("sockets"), behaviour);
    message(&mut enclave.control().await, ready).await;
    fs::write(enclave.path("go"), "").unwrap();
    enclave.said("\"first\"").await;
}

#[tokio::test]
async fn control_tells_what_happened_while_the_agent_was_away() {
    let image = Image::new(&["until /go", "first exit 3", "say again", "wait"]).restarted(1);
    let (mut enclave, mut control) = image.boot().await;
    message(&mut control, ready).await;
    enclave.prepared.agent.stop().await;
    control.hang_up().await;
    fs::write(enclave.path("go"), "").unwrap();
    enclave.prepared.agent = Agent::start(&enclave.folder().join("sockets"), Behaviour::default());
    let mut again = enclave.control().await;
    let restart = message(&mut again, |message| match message {
        FromInit::WorkloadExited { restart_in_ms, .. } => Some(*restart_in_ms),
        _ => None,
    });
    assert!(restart.await.is_some_and(|delay| (5..=10).contains(&delay)));
    enclave.said("again").await;
    enclave.signal(Signal::SIGTERM);
    enclave.ended().await;
}
