//! How a workload's ends are counted, and what is left of it.

use link::control::{EndCause, ExitStatus, FromInit};
use link::logs::LogStream;
use nix::sys::signal::Signal;
use serde_json::json;

use crate::agent::Control;
use crate::enclave::{Enclave, Image, ending, message, until};

async fn exited(control: &mut Control) -> (ExitStatus, Option<u64>) {
    message(control, |message| match message {
        FromInit::WorkloadExited {
            status,
            restart_in_ms,
            ..
        } => Some((*status, *restart_in_ms)),
        _ => None,
    })
    .await
}

fn restart(policy: &str, max: u32) -> serde_json::Value {
    json!({"policy": policy, "max": max, "backoff": "10ms..1s"})
}

fn started(enclave: &Enclave) -> usize {
    let lines = enclave.lines(LogStream::System);
    lines
        .iter()
        .filter(|line| line.starts_with("workload started"))
        .count()
}

#[tokio::test]
async fn restart_of_a_failing_service_ends_when_its_attempts_are_used_up() {
    let image =
        Image::new(&["say run", "exit 3"]).with("/workload/restart", restart("on-failure", 3));
    let (mut enclave, mut control) = image.boot().await;
    let failed = ExitStatus::Code(3);
    // Each is between half of its delay and all of it, by chance.
    for delay in [Some(10), Some(20), Some(40), None] {
        let (status, told) = exited(&mut control).await;
        assert_eq!((status, told.is_some()), (failed, delay.is_some()));
        if let (Some(told), Some(delay)) = (told, delay) {
            assert!((delay / 2..=delay).contains(&told), "{told} of {delay}");
        }
    }
    let (cause, detail) = ending(&mut control).await;
    assert_eq!(cause, EndCause::WorkloadExited(failed));
    assert_eq!(detail, "the workload ended with exit code 3");
    let (code, console) = enclave.ended().await;
    assert_eq!(code, 1);
    assert!(console.contains(&detail), "{console}");
    assert_eq!(enclave.lines(LogStream::Application), ["run"; 4]);
    assert_eq!(started(&enclave), 4);
    enclave
        .line(LogStream::Errors, "ended with exit code 3; restart in ")
        .await;
}

#[tokio::test]
async fn restart_on_failure_leaves_a_service_that_ends_well() {
    let image = Image::new(&["exit 0"]).with("/workload/restart", restart("on-failure", 3));
    let (mut enclave, mut control) = image.boot().await;
    assert_eq!(exited(&mut control).await, (ExitStatus::Code(0), None));
    assert_eq!(enclave.ended().await.0, 0);
}

#[tokio::test]
async fn restart_of_a_batch_does_not_happen() {
    for (code, instruction) in [(0, "exit 0"), (1, "exit 9")] {
        let image = Image::new(&["say result", instruction])
            .with("/workload/kind", json!("batch"))
            .with("/workload/restart", restart("always", 3));
        let (mut enclave, mut control) = image.boot().await;
        assert_eq!(exited(&mut control).await.1, None);
        let (_, detail) = ending(&mut control).await;
        assert!(
            detail.starts_with("the batch ended with exit code"),
            "{detail}"
        );
        assert_eq!(enclave.ended().await.0, code);
        assert_eq!(enclave.lines(LogStream::Application), ["result"]);
    }
}

#[tokio::test]
async fn crash_is_reported_by_its_signal() {
    let (mut enclave, mut control) = Image::new(&["fault"]).boot().await;
    let status = (ExitStatus::Signal(Signal::SIGSEGV as i32), None);
    assert_eq!(exited(&mut control).await, status);
    let (_, detail) = ending(&mut control).await;
    assert_eq!(detail, "the workload ended with signal SIGSEGV");
    assert_eq!(enclave.ended().await.0, 1);
}

#[tokio::test]
async fn crash_under_a_reaper_is_reported_by_its_signal_whichever_it_is() {
    // SIGSEGV, SIGKILL, and a real-time signal, which has no name.
    for (signal, name) in [
        (11, "signal SIGSEGV"),
        (9, "signal SIGKILL"),
        (37, "signal 37"),
    ] {
        let die = format!("die {signal}");
        let (mut enclave, mut control) = Image::new(&[&die]).with_reaper().boot().await;
        assert_eq!(
            exited(&mut control).await,
            (ExitStatus::Signal(signal), None)
        );
        let (_, detail) = ending(&mut control).await;
        assert!(detail.contains(name), "{detail}");
        assert_eq!(enclave.ended().await.0, 1);
    }
}

#[tokio::test]
async fn orphans_are_reaped_while_the_workload_runs_if_the_image_asks_for_it() {
    let image = Image::new(&["orphans 20", "wait"]).with_reaper();
    let (enclave, _control) = image.boot().await;
    enclave.said("no process is left").await;
    let lines = enclave.lines(LogStream::Application);
    assert_eq!(lines.iter().filter(|line| *line == "orphan").count(), 20);
}

#[tokio::test]
async fn orphans_end_with_their_workload() {
    // The left-over process holds a port and the output that the next run needs.
    let image = Image::new(&[
        "leave listen 9000",
        "until /tmp/listening",
        "first exit 1",
        "say second",
        "wait",
    ])
    .restarted(1);
    // The second run starts its own listener on the same port.
    let (mut enclave, mut control) = image.boot().await;
    let (status, delay) = exited(&mut control).await;
    assert_eq!((status, delay.is_some()), (ExitStatus::Code(1), true));
    enclave.said("second").await;
    let listening = || {
        let lines = enclave.lines(LogStream::Application);
        lines
            .iter()
            .filter(|line| *line == "listening on 9000")
            .count()
            == 2
    };
    until(listening).await;
    enclave.signal(Signal::SIGTERM);
    assert_eq!(enclave.ended().await.0, 0);
}

#[tokio::test]
async fn restart_takes_a_workload_in_the_background_for_ended() {
    let image = Image::new(&["leave wait", "exit 0"]);
    let (mut enclave, mut control) = image.boot().await;
    let (cause, _) = ending(&mut control).await;
    assert_eq!(cause, EndCause::WorkloadExited(ExitStatus::Code(0)));
    assert_eq!(enclave.ended().await.0, 0);
}

#[tokio::test]
async fn restart_leaves_no_descriptors_behind() {
    let image = Image::new(&["exit 1"]).with(
        "/workload/restart",
        json!({"policy": "always", "max": 60, "backoff": "10ms..50ms"}),
    );
    let (enclave, mut control) = image.boot().await;
    let descriptors = format!("/proc/{}/fd", enclave.pid1());
    let mut counts = Vec::new();
    for _ in 0..60 {
        exited(&mut control).await;
        counts.push(std::fs::read_dir(&descriptors).unwrap().count());
    }
    // The log connection may come after the first runs.
    assert!(counts[59] <= counts[0] + 4, "{counts:?}");
}

#[tokio::test]
async fn restart_does_not_follow_a_shutdown() {
    let image = Image::new(&["leave wait", "exit 1"]).with(
        "/workload/restart",
        json!({"policy": "always", "max": 5, "backoff": "1h..1h"}),
    );
    let (mut enclave, mut control) = image.boot().await;
    let delay = exited(&mut control).await.1;
    assert!(delay.is_some_and(|delay| delay >= 1_800_000), "{delay:?}");
    // What was left behind is killed and reaped during the delay, not after it.
    let pid1 = enclave.pid1();
    let children = format!("/proc/{pid1}/task/{pid1}/children");
    until(|| std::fs::read_to_string(&children).unwrap().is_empty()).await;
    enclave.signal(Signal::SIGINT);
    let (cause, detail) = ending(&mut control).await;
    assert_eq!(cause, EndCause::Shutdown);
    assert!(detail.contains("between restarts"), "{detail}");
    assert_eq!(enclave.ended().await.0, 0);
}
