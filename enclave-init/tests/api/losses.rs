//! What is lost is counted: records written are records stored and records lost.

use std::collections::BTreeMap;
use std::fs;

use link::control::{EndCause, FromInit, LossReason, Losses};
use link::logs::LogStream;
use nix::sys::signal::Signal;
use serde_json::json;

use crate::agent::Control;
use crate::enclave::{Enclave, Image, LIMIT, message, until};

/// The last message's counts.
async fn last_words(control: &mut Control) -> (EndCause, Losses, BTreeMap<LogStream, u64>) {
    message(control, |message| match message {
        FromInit::Ending {
            cause,
            losses,
            numbered,
            ..
        } => Some((*cause, losses.clone(), numbered.iter().copied().collect())),
        _ => None,
    })
    .await
}

fn count(losses: &Losses, stream: LogStream, reason: LossReason) -> u64 {
    let matching = |loss: &&link::control::Loss| loss.stream == stream && loss.reason == reason;
    losses
        .0
        .iter()
        .find(matching)
        .map_or(0, |loss| loss.records)
}

/// Every record that was numbered is held by the agent or counted as lost.
fn assert_complete(enclave: &Enclave, losses: &Losses, numbered: &BTreeMap<LogStream, u64>) {
    for stream in LogStream::ALL {
        let stored = enclave.records(stream);
        let held = stored.last().map_or(0, |record| record.sequence);
        let numbered = numbered.get(&stream).copied().unwrap_or(0);
        let dropped = count(losses, stream, LossReason::QueueFull);
        // The agent may hold more than it could say in time.
        let ended = count(losses, stream, LossReason::Ended).min(numbered - held);
        let stored = u64::try_from(stored.len()).unwrap();
        assert_eq!(
            stored + dropped + ended,
            numbered,
            "{}: {losses:?}",
            stream.name()
        );
    }
}

#[tokio::test]
async fn losses_behind_an_agent_that_takes_nothing_are_told_at_once_and_at_the_end() {
    const LINES: u64 = 160_000;
    let flood = format!("flood {LINES}");
    let mut enclave = Image::new(&["until /go", &flood, "mark /end", "wait"])
        .agent(|agent| agent.takes_logs = false)
        .start();
    let mut control = enclave.control().await;
    // Some are stored, so that there are all three kinds.
    enclave.prepared.agent.shared.batches.add_permits(3);
    fs::write(enclave.path("go"), "").unwrap();
    let end = enclave.path("end");
    until(|| end.exists()).await;
    let told = message(&mut control, |message| match message {
        FromInit::Lost { losses } => Some(losses.clone()),
        _ => None,
    })
    .await;
    assert!(count(&told, LogStream::Application, LossReason::QueueFull) > 0);
    enclave.signal(Signal::SIGTERM);
    let (cause, losses, numbered) = last_words(&mut control).await;
    assert_eq!(cause, EndCause::Shutdown);
    assert_eq!(numbered[&LogStream::Application], LINES);
    assert!(count(&losses, LogStream::Application, LossReason::Ended) > 0);
    assert!(
        count(&losses, LogStream::Application, LossReason::QueueFull)
            >= count(&told, LogStream::Application, LossReason::QueueFull)
    );
    let (code, console) = enclave.ended().await;
    assert_eq!(code, 0);
    assert!(console.contains(" log records were lost"), "{console}");
    assert_complete(&enclave, &losses, &numbered);
}

#[tokio::test]
async fn losses_are_told_again_on_a_new_connection() {
    let mut enclave = Image::new(&["until /go", "flood 160000", "mark /end", "wait"])
        .agent(|agent| agent.takes_logs = false)
        .start();
    let control = enclave.control().await;
    fs::write(enclave.path("go"), "").unwrap();
    let end = enclave.path("end");
    until(|| end.exists()).await;
    control.hang_up().await;
    let mut control = enclave.control().await;
    let told = message(&mut control, |message| match message {
        FromInit::Lost { losses } => Some(losses.clone()),
        _ => None,
    })
    .await;
    assert!(count(&told, LogStream::Application, LossReason::QueueFull) > 0);
}

#[tokio::test]
async fn losses_of_a_workload_that_may_block_are_those_of_its_end() {
    let mut enclave = Image::new(&["flood 1000000"])
        .with("/logs/when_full", json!("block"))
        .agent(|agent| agent.takes_logs = false)
        .start();
    let mut control = enclave.control().await;
    let batches = &enclave.prepared.agent.shared.batches;
    batches.add_permits(2);
    // Before both are taken the workload may be waiting for a moment only.
    until(|| batches.available_permits() == 0).await;
    enclave.blocks().await;
    enclave.signal(Signal::SIGTERM);
    let (cause, losses, numbered) = tokio::time::timeout(LIMIT, last_words(&mut control))
        .await
        .unwrap();
    assert_eq!(cause, EndCause::Shutdown);
    assert_eq!(
        count(&losses, LogStream::Application, LossReason::QueueFull),
        0
    );
    assert!(count(&losses, LogStream::Application, LossReason::Ended) > 0);
    assert_eq!(enclave.ended().await.0, 0);
    assert_complete(&enclave, &losses, &numbered);
}

#[tokio::test]
async fn losses_are_none_where_the_agent_takes_everything() {
    let (mut enclave, mut control) = Image::new(&["flood 20000", "wait"]).boot().await;
    enclave.line(LogStream::Health, "healthy").await;
    enclave.signal(Signal::SIGTERM);
    let (_, losses, numbered) = last_words(&mut control).await;
    assert_eq!(losses, Losses::default());
    assert_eq!(enclave.ended().await.0, 0);
    assert_complete(&enclave, &losses, &numbered);
}
