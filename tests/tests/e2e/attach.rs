//! The enclave outlives its agent, and the next one takes it over.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use enclave_tests::agent::LIMIT;
use enclave_tests::{Agent, Hypervisor};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::{IMAGE, start, under_both};

under_both!(
    keep_for_lets_everything_go_on_with_the_next_agent,
    keep_for_lets_an_agent_be_upgraded_in_place,
    keep_for_loses_no_line_while_agents_are_killed,
    keep_for_covers_an_agent_killed_during_the_boot,
);

const KEEP: [&str; 2] = ["--keep-for", "60s"];

/// The process that is the enclave.
fn machine(agent: &Agent, hypervisor: Hypervisor) -> String {
    let word = match hypervisor {
        Hypervisor::Sim => "sim-pid1",
        Hypervisor::Qemu => "nitro-enclave",
    };
    let found = demo::leftovers::find(agent.folder(), &[]);
    let mut found = found.into_iter().filter(|process| process.contains(word));
    let machine = found.next().expect("no enclave");
    assert_eq!(found.next(), None);
    machine
}

/// Waits until the workload, which may have been started a moment ago, answers.
async fn echo(address: SocketAddr) {
    let answered = async {
        while !answers(address)
            .await
            .is_ok_and(|answer| answer == b"hello")
        {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(LIMIT, answered).await.unwrap();
}

async fn answers(address: SocketAddr) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"hello").await?;
    stream.shutdown().await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(answer)
}

async fn keep_for_lets_everything_go_on_with_the_next_agent(hypervisor: Hypervisor) {
    let mut agent = start(hypervisor, "serve", &KEEP);
    let address = agent.ready().await.unwrap();
    agent.line("listening").await.unwrap();
    echo(address).await;
    let before = agent.status().await.unwrap();
    let enclave = machine(&agent, hypervisor);
    agent.kill().await.unwrap();
    assert!(TcpStream::connect(address).await.is_err());
    assert_eq!(machine(&agent, hypervisor), enclave);

    agent.run_again().unwrap();
    let address = agent.ready().await.unwrap();
    agent
        .event(|event| event["event"] == "health" && event["state"] == "healthy")
        .await
        .unwrap();
    assert_eq!(machine(&agent, hypervisor), enclave);
    echo(address).await;
    let after = agent.status().await.unwrap();
    for same in [
        "state",
        "boot",
        "boot_steps",
        "init_version",
        "self_check",
        "cid",
        "pcrs",
    ] {
        assert_eq!(after[same], before[same], "{same}");
    }
    let outcome = match hypervisor {
        Hypervisor::Sim => "passed",
        // QEMU's module has no key to sign with.
        Hypervisor::Qemu => "unsigned",
    };
    assert_eq!(after["self_check"]["outcome"], outcome);
    assert!(after["uptime_ms"].as_u64() >= before["uptime_ms"].as_u64());
    let document = agent
        .command("attest", &["--nonce", "c0ffee"])
        .await
        .unwrap();
    let pcr0 = IMAGE.measurements.pcr0;
    let bytes = pcr0.as_bytes();
    assert!(document.windows(bytes.len()).any(|window| window == bytes));
    let ended = agent.stopped().await.unwrap();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(ended.end()["cause"], "stopped");
}

async fn keep_for_lets_an_agent_be_upgraded_in_place(hypervisor: Hypervisor) {
    let mut agent = start(hypervisor, "serve", &KEEP);
    agent.line("listening").await.unwrap();
    agent.command("detach", &[]).await.unwrap();
    agent
        .event(|event| event["event"] == "detached" && event["exit_code"] == 14)
        .await
        .unwrap();
    let enclave = machine(&agent, hypervisor);
    agent.run_again().unwrap();
    echo(agent.ready().await.unwrap()).await;
    assert_eq!(machine(&agent, hypervisor), enclave);
    assert_eq!(agent.stopped().await.unwrap().code, Some(0));
}

/// Random milliseconds up to a limit.
fn random(limit: u64) -> Duration {
    let mut random = [0; 2];
    aws_lc_rs::rand::fill(&mut random).unwrap();
    Duration::from_millis(u64::from(u16::from_le_bytes(random)) % limit)
}

async fn keep_for_loses_no_line_while_agents_are_killed(hypervisor: Hypervisor) {
    let (rounds, count, longest) = match hypervisor {
        Hypervisor::Sim => (50, 15_000, 400),
        Hypervisor::Qemu => (8, 10_000, 1500),
    };
    let mut agent = start(hypervisor, &format!("paced {count}"), &KEEP);
    agent.ready().await.unwrap();
    let mut numbers = BTreeSet::new();
    for _ in 0..rounds {
        sleep(random(longest)).await;
        note(&mut numbers, &agent.kill().await.unwrap());
        agent.run_again().unwrap();
    }
    agent.line("done").await.unwrap();
    let ended = agent.stopped().await.unwrap();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    note(&mut numbers, &ended.events);
    assert_eq!(numbers.len(), count, "lines are lost");
    let dropped = |event: &Value| event["text"].to_string().contains("were dropped");
    assert!(!ended.events.iter().any(dropped));
}

/// Notes the numbers of the lines that an agent has printed.
fn note(numbers: &mut BTreeSet<usize>, events: &[Value]) {
    for event in events {
        let text = event["text"].as_str().unwrap_or_default();
        if event["stream"] == "application"
            && let Some(number) = text.strip_prefix("line ")
        {
            numbers.insert(number.parse().unwrap());
        }
    }
}

async fn keep_for_covers_an_agent_killed_during_the_boot(hypervisor: Hypervisor) {
    let (rounds, longest) = match hypervisor {
        Hypervisor::Sim => (30, 200),
        Hypervisor::Qemu => (3, 4000),
    };
    for _ in 0..rounds {
        let mut agent = start(hypervisor, "serve", &KEEP);
        let delay = random(longest);
        sleep(delay).await;
        agent.kill().await.unwrap();
        agent.run_again().unwrap();
        let address = agent
            .ready()
            .await
            .unwrap_or_else(|error| panic!("killed after {delay:?}: {error:#}"));
        echo(address).await;
        assert_eq!(agent.stopped().await.unwrap().code, Some(0));
    }
}
