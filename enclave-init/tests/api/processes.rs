//! The workload as PID 1 of its namespace, and the signals that reach it all the same.

use std::time::{Duration, Instant};

use link::control::{EndCause, FromAgent};
use link::logs::LogStream;
use nix::sys::signal::Signal;
use serde_json::json;

use crate::enclave::{Enclave, Image, ending, until};

/// Much less than the grace, and much more than it takes.
const AT_ONCE: Duration = Duration::from_secs(15);

/// Stops the enclave, and takes the time that its workload has needed.
async fn stopped(image: Image, when: &str) -> Enclave {
    let (mut enclave, mut control) = image.boot().await;
    enclave.said(when).await;
    let begun = Instant::now();
    control.send(FromAgent::Shutdown { grace_ms: None }).await;
    assert_eq!(ending(&mut control).await.0, EndCause::Shutdown);
    let lines = enclave.lines(LogStream::Application);
    assert!(begun.elapsed() < AT_ONCE, "{lines:?}");
    assert_eq!(enclave.ended().await.0, 0);
    // There was no need to kill it after the grace.
    assert_eq!(enclave.lines(LogStream::Errors), [""; 0]);
    enclave
}

#[tokio::test]
async fn stop_of_a_pid1_without_a_handler_is_at_once() {
    for signal in ["SIGTERM", "SIGQUIT", "SIGRTMIN+3", "SIGUSR1", "SIGKILL"] {
        // Children have no say, as when an ordinary program ends.
        let image = Image::new(&["leave handle SIGTERM", "say here", "wait"])
            .with("/workload/stop_signal", json!(signal));
        stopped(image, "here").await;
    }
}

#[tokio::test]
async fn stop_of_a_pid1_is_handled_by_it_in_whichever_way() {
    for (how, when, then) in [
        ("handle SIGTERM", "handling", "handled SIGTERM"),
        ("catch SIGTERM", "catching", "caught SIGTERM"),
        ("descriptor SIGTERM", "watching", "read SIGTERM"),
    ] {
        let image = Image::new(&[how, "say goodbye", "exit 5"]);
        let enclave = stopped(image, when).await;
        let lines = enclave.lines(LogStream::Application);
        assert_eq!(lines, [when, then, "goodbye"]);
    }
}

#[tokio::test]
async fn stop_before_a_handler_is_set_ends_a_pid1_as_any_program() {
    let image = Image::new(&["say early", "until /go", "handle SIGTERM"]);
    let enclave = stopped(image, "early").await;
    assert_eq!(enclave.lines(LogStream::Application), ["early"]);
}

#[tokio::test]
async fn stop_after_a_handler_is_set_late_is_handled() {
    let image = Image::new(&["say early", "until /go", "handle SIGTERM"]);
    let (mut enclave, mut control) = image.boot().await;
    enclave.said("early").await;
    std::fs::write(enclave.path("go"), "").unwrap();
    enclave.said("handling").await;
    control.send(FromAgent::Shutdown { grace_ms: None }).await;
    assert_eq!(ending(&mut control).await.0, EndCause::Shutdown);
    enclave.ended().await;
    enclave.said("handled SIGTERM").await;
}

#[tokio::test]
async fn signals_that_nobody_handles_end_a_pid1_and_are_its_end() {
    for signal in [Signal::SIGHUP, Signal::SIGUSR2] {
        let (mut enclave, mut control) = Image::new(&["say here", "wait"]).boot().await;
        enclave.said("here").await;
        enclave.signal(signal);
        let (_, detail) = ending(&mut control).await;
        assert_eq!(detail, format!("the workload ended with signal {signal}"));
        assert_eq!(enclave.ended().await.0, 1);
    }
}

#[tokio::test]
async fn stop_of_a_program_under_a_reaper_is_the_kernels() {
    let image = Image::new(&["say here", "wait"]).with_reaper();
    stopped(image, "here").await;
    let image = Image::new(&["handle SIGTERM"]).with_reaper();
    let enclave = stopped(image, "handling").await;
    enclave.said("handled SIGTERM").await;
}

#[tokio::test]
async fn init_that_insists_on_pid1_runs_reaps_and_hands_signals_on() {
    let image = Image::new(&["reign handle SIGTERM"]);
    let enclave = stopped(image, "handling").await;
    enclave.said("handled SIGTERM").await;
    // What it starts may leave orphans: it, and nobody else, gets them.
    let (enclave, _control) = Image::new(&["reign orphans 3"]).boot().await;
    enclave.said("no process is left").await;
    enclave.said("reaped").await;
    let image = Image::new(&["reign say child"]).with_reaper();
    let (mut enclave, mut control) = image.boot().await;
    let (_, detail) = ending(&mut control).await;
    assert!(detail.contains("exit code 100"), "{detail}");
    enclave.ended().await;
}

#[tokio::test]
async fn end_of_pid1_ends_everything_in_its_namespace() {
    let image = Image::new(&["leave wait", "until /end", "exit 3"]);
    let (mut enclave, mut control) = image.boot().await;
    enclave.said("left").await;
    until(|| crate::enclave::processes(enclave.folder()).len() >= 3).await;
    std::fs::write(enclave.path("end"), "").unwrap();
    let (_, detail) = ending(&mut control).await;
    assert_eq!(detail, "the workload ended with exit code 3");
    enclave.ended().await;
}
