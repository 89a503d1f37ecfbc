//! Every way that an enclave is ended from outside.

use std::time::Duration;

use link::control::{EndCause, FromAgent};
use link::logs::LogStream;
use link::target::Reply;
use nix::sys::signal::{Signal, kill};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::enclave::{Image, ending, ready, until};
use crate::ingress::ask;

#[tokio::test]
async fn shutdown_by_the_agent_is_orderly() {
    let image = Image::new(&["catch SIGTERM", "say goodbye", "exit 5"]);
    let (mut enclave, mut control) = image.boot().await;
    enclave.said("catching").await;
    control.send(FromAgent::Shutdown { grace_ms: None }).await;
    // A second one changes nothing.
    control
        .send(FromAgent::Shutdown { grace_ms: Some(0) })
        .await;
    let (cause, detail) = ending(&mut control).await;
    assert_eq!(
        (cause, detail.as_str()),
        (EndCause::Shutdown, "shut down as asked")
    );
    // By then the agent holds every record.
    let lines = enclave.lines(LogStream::Application);
    assert_eq!(lines, ["catching", "caught SIGTERM", "goodbye"]);
    let lines = enclave.lines(LogStream::System);
    assert!(
        lines
            .iter()
            .any(|line| line == "ending: shut down as asked")
    );
    assert_eq!(control.receive().await, None);
    let (code, console) = enclave.ended().await;
    assert_eq!((code, console.as_str()), (0, ""));
}

#[tokio::test]
async fn shutdown_by_sigterm_and_sigint_is_orderly() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let (mut enclave, mut control) = Image::new(&["catch SIGTERM"]).boot().await;
        enclave.said("catching").await;
        enclave.signal(signal);
        assert_eq!(ending(&mut control).await.0, EndCause::Shutdown);
        assert_eq!(enclave.ended().await.0, 0);
        enclave.said("caught SIGTERM").await;
    }
}

#[tokio::test]
async fn shutdown_by_two_signals_is_one_shutdown() {
    let image = Image::new(&["catch SIGTERM", "until /end", "say goodbye"]);
    let (mut enclave, mut control) = image.boot().await;
    enclave.said("catching").await;
    enclave.signal(Signal::SIGTERM);
    enclave.said("caught SIGTERM").await;
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        enclave.signal(signal);
    }
    std::fs::write(enclave.path("end"), "").unwrap();
    assert_eq!(ending(&mut control).await.0, EndCause::Shutdown);
    assert_eq!(enclave.ended().await.0, 0);
    enclave.said("goodbye").await;
}

#[tokio::test]
async fn signals_that_are_others_are_the_workloads() {
    let image = Image::new(&["catch SIGHUP SIGUSR1 SIGUSR2", "wait"]);
    let (enclave, _control) = image.boot().await;
    enclave.said("catching").await;
    for signal in [Signal::SIGUSR2, Signal::SIGHUP, Signal::SIGUSR1] {
        enclave.signal(signal);
        enclave.said(&format!("caught {signal}")).await;
    }
}

#[tokio::test]
async fn stop_grace_ends_a_workload_that_ignores_sigterm() {
    let instructions = ["ignore SIGTERM", "leave wait", "wait"];
    let by_image = Image::new(&instructions).with("/workload/stop_grace", json!("50ms"));
    let by_agent = Image::new(&instructions);
    for (image, grace_ms) in [(by_image, None), (by_agent, Some(70))] {
        let (mut enclave, mut control) = image.boot().await;
        enclave.said("left").await;
        control.send(FromAgent::Shutdown { grace_ms }).await;
        assert_eq!(ending(&mut control).await.0, EndCause::Shutdown);
        assert_eq!(enclave.ended().await.0, 0);
        let text = format!(
            "did not stop within {}ms of SIGTERM",
            grace_ms.unwrap_or(50)
        );
        enclave.line(LogStream::Errors, &text).await;
    }
}

#[tokio::test]
async fn stop_signal_is_the_images_and_for_the_main_process_alone() {
    for signal in ["SIGQUIT", "SIGTERM"] {
        let catch = format!("catch {signal}");
        let image = Image::new(&[&format!("leave {catch}"), &catch, "say goodbye"])
            .with("/workload/stop_signal", json!(signal));
        let (mut enclave, mut control) = image.boot().await;
        let both = || {
            let lines = enclave.lines(LogStream::Application);
            lines.iter().filter(|line| *line == "catching").count() == 2
        };
        until(both).await;
        control.send(FromAgent::Shutdown { grace_ms: None }).await;
        assert_eq!(ending(&mut control).await.0, EndCause::Shutdown);
        let lines = enclave.lines(LogStream::Application);
        let caught = format!("caught {signal}");
        let caught = lines.iter().filter(|line| **line == caught);
        assert_eq!(caught.count(), 1, "{lines:?}");
        assert!(lines.contains(&"goodbye".to_owned()), "{lines:?}");
        enclave.ended().await;
    }
}

#[tokio::test]
async fn shutdown_lets_a_program_without_a_handler_answer() {
    let ingress = json!([{"port": 80, "to": 8080}]);
    let image = Image::new(&["serve 8080"]).with("/network/ingress", ingress);
    let (mut enclave, mut control) = image.boot().await;
    enclave.said("serving").await;
    let (mut stream, reply) = ask(&enclave, 8080).await;
    assert_eq!(reply, Reply::Connected);
    stream.write_all(b"question").await.unwrap();
    control.send(FromAgent::Shutdown { grace_ms: None }).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "noitseuq");
    assert_eq!(ending(&mut control).await.0, EndCause::Shutdown);
    assert_eq!(enclave.ended().await.0, 0);
    // It was not left alone until its grace was over.
    assert_eq!(enclave.lines(LogStream::Errors), [""; 0]);
}

#[tokio::test]
async fn stop_signal_may_be_a_real_time_signal() {
    let image =
        Image::new(&["ignore SIGTERM", "wait"]).with("/workload/stop_signal", json!("SIGRTMIN+3"));
    let (mut enclave, mut control) = image.boot().await;
    enclave.said("ignoring").await;
    control.send(FromAgent::Shutdown { grace_ms: None }).await;
    assert_eq!(ending(&mut control).await.0, EndCause::Shutdown);
    assert_eq!(enclave.ended().await.0, 0);
    // The signal has ended it: there was no need to kill it.
    assert_eq!(enclave.lines(LogStream::Errors), [""; 0]);
}

#[tokio::test]
async fn stop_signal_that_is_ignored_is_named() {
    let image = Image::new(&["ignore SIGQUIT", "wait"])
        .with("/workload/stop_signal", json!("SIGQUIT"))
        .with("/workload/stop_grace", json!("50ms"));
    let (mut enclave, mut control) = image.boot().await;
    enclave.said("ignoring").await;
    control.send(FromAgent::Shutdown { grace_ms: None }).await;
    ending(&mut control).await;
    enclave.ended().await;
    let text = "did not stop within 50ms of SIGQUIT and was killed";
    enclave.line(LogStream::Errors, text).await;
}

#[tokio::test]
async fn launcher_whose_input_ends_ends_everything() {
    let (mut enclave, mut control) = Image::new(&["leave wait", "wait"]).boot().await;
    enclave.said("left").await;
    drop(enclave.input.take());
    assert_eq!(enclave.ended().await.0, 1);
    while control.receive().await.is_some() {}
}

#[tokio::test]
async fn launcher_that_is_killed_takes_everything_along() {
    let (mut enclave, _control) = Image::new(&["leave wait", "wait"]).boot().await;
    enclave.said("left").await;
    enclave.signal(Signal::SIGKILL);
    enclave.ended().await;
}

#[tokio::test]
async fn launcher_that_is_killed_at_any_moment_takes_everything_along() {
    for delay in 0..30 {
        let mut enclave = Image::new(&["wait"]).start();
        tokio::time::sleep(Duration::from_millis(delay)).await;
        enclave.signal(Signal::SIGKILL);
        enclave.ended().await;
    }
}

#[tokio::test]
async fn init_that_is_killed_takes_everything_along() {
    let (mut enclave, _control) = Image::new(&["leave wait", "wait"]).boot().await;
    enclave.said("left").await;
    kill(enclave.pid1(), Signal::SIGKILL).unwrap();
    assert_eq!(enclave.ended().await.0, 1);
}

#[tokio::test]
async fn console_that_nobody_reads_does_not_change_the_end() {
    let (mut enclave, mut control) = Image::new(&["until /end", "exit 3"]).boot().await;
    drop(enclave.launcher.stderr.take());
    ready(&mut control).await;
    std::fs::write(enclave.path("end"), "").unwrap();
    let (_, detail) = ending(&mut control).await;
    assert!(detail.contains("exit code 3"), "{detail}");
    assert_eq!(enclave.ended().await.0, 1);
}
