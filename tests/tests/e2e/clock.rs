//! The clock inside, and time that somebody loses.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use enclave_tests::{Agent, Hypervisor};
use nix::sys::signal::{Signal, kill};
use serde_json::Value;
use tokio::time::sleep;

use crate::{start, under_both};

under_both!(clock_is_told_to_the_guest);

/// What one reading may be late, from the guest to this test on a busy machine.
const LATE_US: i128 = 3_000_000;

fn now_us() -> i128 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i128::try_from(now.as_micros()).unwrap()
}

/// What the workload reads next that `wanted` accepts, with the time of its arrival.
async fn reading(agent: &mut Agent, wanted: impl Fn(&Value) -> bool) -> (Value, i128) {
    let read = |event: &Value| {
        let text = event["text"].as_str()?;
        serde_json::from_str::<Value>(text.strip_prefix("time ")?).ok()
    };
    let event = agent.event(|event| read(event).is_some_and(|time| wanted(&time)));
    let event = event.await.unwrap();
    (read(&event).unwrap(), now_us())
}

fn unix_us(time: &Value) -> i128 {
    i128::from(time["unix_ns"].as_u64().unwrap()) / 1_000
}

/// That the clock is as right as it says, to one who read it at `arrived` or before.
fn assert_within_bound(time: &Value, arrived: i128) {
    let bound = i128::from(time["error_bound_us"].as_u64().unwrap());
    let behind = arrived - unix_us(time);
    assert!(
        (-bound..=bound + LATE_US).contains(&behind),
        "{behind}: {time}"
    );
}

fn is_synchronised(time: &Value) -> bool {
    time["state"] == "synchronised"
}

async fn clock_is_told_to_the_guest(hypervisor: Hypervisor) {
    let mut agent = start(hypervisor, "time 40", &[]);
    agent.ready().await.unwrap();
    // Under emulation the oscillator loses percents: after so long it shows.
    let begun = now_us();
    let later = |time: &Value| is_synchronised(time) && unix_us(time) > begun + 20_000_000;
    let (time, arrived) = reading(&mut agent, later).await;
    println!("{time}");
    assert_within_bound(&time, arrived);
    let told = agent.event(|event| event["event"] == "clock");
    assert_eq!(told.await.unwrap()["source"], "nsm");
    let status = agent.command("status", &["--json"]).await.unwrap();
    let status: Value = serde_json::from_slice(&status).unwrap();
    assert_eq!(status["clock"]["source"], "nsm", "{status}");
}

#[tokio::test]
async fn clock_catches_up_after_the_machine_was_stopped() {
    let mut agent = start(Hypervisor::Qemu, "time 90", &[]);
    agent.ready().await.unwrap();
    reading(&mut agent, is_synchronised).await;
    for (signal, seconds) in [(Signal::SIGSTOP, 40), (Signal::SIGCONT, 0)] {
        for pid in agent.processes("nitro-enclave").unwrap() {
            kill(pid, signal).unwrap();
        }
        sleep(Duration::from_secs(seconds)).await;
    }
    let again = now_us();
    let caught_up = |time: &Value| {
        is_synchronised(time) && time["pauses"] != 0 && unix_us(time) > again - LATE_US
    };
    let (time, arrived) = reading(&mut agent, caught_up).await;
    println!("{time}");
    assert_within_bound(&time, arrived);
    let told = agent.event(|event| event["event"] == "clock" && event["pauses"] != 0);
    told.await.unwrap();
}

/// Longer than an enclave may be silent.
const LONG: Duration = Duration::from_secs(65);

#[tokio::test]
async fn heartbeat_outlasts_an_agent_that_was_stopped() {
    let mut agent = start(Hypervisor::Sim, "serve", &[]);
    agent.ready().await.unwrap();
    agent.signal(Signal::SIGSTOP).unwrap();
    sleep(LONG).await;
    agent.signal(Signal::SIGCONT).unwrap();
    let paused = agent
        .event(|event| event["event"] == "paused")
        .await
        .unwrap();
    assert!(paused["lost_ms"].as_u64().unwrap() > 60_000, "{paused}");
    let status = agent.command("status", &["--json"]).await.unwrap();
    let status: Value = serde_json::from_slice(&status).unwrap();
    assert_eq!(status["state"], "ready", "{status}");
    assert_eq!(status["agent_pauses"], 1, "{status}");
    agent.signal(Signal::SIGTERM).unwrap();
    let ended = agent.ended().await.unwrap();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}
