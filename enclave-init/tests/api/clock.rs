//! The clock: what the workload and the agent are told of it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use link::control::{ClockState, FromInit};
use link::logs::LogStream;
use nix::sys::signal::{Signal, kill};
use serde_json::Value;
use tokio::time::sleep;

use crate::enclave::{Image, message};

fn now_ns() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(now.as_nanos()).unwrap()
}

#[tokio::test]
async fn clock_is_told_with_its_bound_and_its_sources() {
    let before = now_ns();
    let image = Image::new(&["request unix GET /v1/time", "wait"]);
    let (enclave, _control) = image.boot().await;
    let line = enclave.said("api ").await;
    let after = now_ns();
    let body = line.strip_prefix("api 200 ").unwrap();
    let time: Value = serde_json::from_slice(&STANDARD.decode(body).unwrap()).unwrap();
    // A simulated enclave has its host's clock.
    let told = time["unix_ns"].as_u64().unwrap();
    assert!((before..=after).contains(&told), "{time}");
    assert!(time["time"].as_str().unwrap().ends_with('Z'), "{time}");
    assert_eq!(time["state"], "synchronised", "{time}");
    assert_eq!(time["pauses"], 0);
    let bound = time["error_bound_us"].as_u64().unwrap();
    assert!((1..10_000_000).contains(&bound), "{time}");
    let names = |key: &str| {
        let sources = time["sources"].as_array().unwrap();
        let having = sources.iter().filter(|source| source[key] == true);
        having
            .map(|source| source["name"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(names("used"), ["nsm"]);
    assert_eq!(names("answers"), ["nsm"]);
    assert!(time["detail"].as_str().unwrap().contains("host's clock"));
}

fn clock(message: &FromInit) -> Option<(ClockState, String, u64)> {
    match message {
        FromInit::Clock {
            state,
            source,
            error_us: Some(_),
            pauses,
            ..
        } => Some((*state, source.to_string(), *pauses)),
        _ => None,
    }
}

#[tokio::test]
async fn clock_is_told_to_the_agent_on_every_connection() {
    let (mut enclave, mut control) = Image::new(&["wait"]).boot().await;
    let told = message(&mut control, clock).await;
    assert_eq!(told, (ClockState::Synchronised, "nsm".to_owned(), 0));
    control.hang_up().await;
    let mut again = enclave.control().await;
    assert_eq!(message(&mut again, clock).await, told);
    enclave
        .line(LogStream::System, "clock: state=synchronised source=nsm")
        .await;
}

#[tokio::test]
async fn clock_notices_a_machine_that_was_stopped() {
    let (enclave, mut control) = Image::new(&["wait"]).boot().await;
    message(&mut control, clock).await;
    kill(enclave.pid1(), Signal::SIGSTOP).unwrap();
    sleep(Duration::from_secs(8)).await;
    kill(enclave.pid1(), Signal::SIGCONT).unwrap();
    let paused = message(&mut control, |message| {
        clock(message).filter(|(_, _, pauses)| *pauses > 0)
    });
    assert_eq!(
        paused.await,
        (ClockState::Synchronised, "nsm".to_owned(), 1)
    );
    enclave
        .line(LogStream::Errors, "clock: the machine was not run for")
        .await;
}
