//! Processes killed at random moments: nothing hangs, every end has its cause,
//! nothing is left behind.

use std::time::Duration;

use enclave_tests::{Agent, Hypervisor};
use nix::sys::signal::{Signal, kill};
use tokio::time::sleep;

use crate::{start, under_both};

under_both!(
    kill_of_the_agent_leaves_nothing,
    kill_of_the_machine_leaves_nothing,
    kill_of_anything_at_random_leaves_nothing,
);

/// The process that is the enclave.
fn machine(hypervisor: Hypervisor) -> &'static str {
    match hypervisor {
        Hypervisor::Sim => "sim-pid1",
        Hypervisor::Qemu => "nitro-enclave",
    }
}

async fn kill_of_the_agent_leaves_nothing(hypervisor: Hypervisor) {
    let mut agent = start(hypervisor, "serve", &[]);
    agent.line("listening").await.unwrap();
    agent.signal(Signal::SIGKILL).unwrap();
    assert_eq!(agent.ended().await.unwrap().code, None);
}

async fn kill_of_the_machine_leaves_nothing(hypervisor: Hypervisor) {
    let mut agent = start(hypervisor, "serve", &[]);
    agent.line("listening").await.unwrap();
    let machines = agent.processes(machine(hypervisor)).unwrap();
    assert!(!machines.is_empty());
    for pid in machines {
        kill(pid, Signal::SIGKILL).unwrap();
    }
    let ended = agent.ended().await.unwrap();
    assert_eq!(ended.code, Some(12), "{}", ended.stderr);
    assert_eq!(ended.end()["cause"], "died");
}

/// What is killed, as the words that its command line holds.
fn victims(hypervisor: Hypervisor) -> &'static [&'static str] {
    match hypervisor {
        Hypervisor::Sim => &["", "guard", "sim --tree", "sim-pid1", "test-workload"],
        Hypervisor::Qemu => &["", "guard", "nitro-enclave", "--guest-cid"],
    }
}

async fn kill_of_anything_at_random_leaves_nothing(hypervisor: Hypervisor) {
    let (rounds, longest) = match hypervisor {
        Hypervisor::Sim => (30, 300),
        Hypervisor::Qemu => (8, 4000),
    };
    for round in 0..rounds {
        let mut random = [0; 4];
        aws_lc_rs::rand::fill(&mut random).unwrap();
        let delay = u64::from(u16::from_le_bytes([random[0], random[1]])) % longest;
        let victims = victims(hypervisor);
        let victim = victims[usize::from(random[2]) % victims.len()];
        let told = format!("round {round}: {victim:?} killed after {delay} ms");

        let agent = start(hypervisor, "serve", &[]);
        sleep(Duration::from_millis(delay)).await;
        strike(&agent, victim);
        let reason = end(agent, victim).await;
        // Shown when a later round fails.
        println!("{told}: {reason}");
    }
}

/// Kills one process, if it is there already.
fn strike(agent: &Agent, victim: &str) {
    let pids = if victim.is_empty() {
        vec![agent.pid().unwrap()]
    } else {
        agent.processes(&victim.replace(' ', "\0")).unwrap()
    };
    for pid in pids {
        // It may have ended by itself.
        let _ = kill(pid, Signal::SIGKILL);
    }
}

/// Waits for the end; what goes on in spite of everything is stopped.
async fn end(agent: Agent, victim: &str) -> String {
    if victim.is_empty() {
        agent.ended().await.unwrap();
        return "the agent was killed".to_owned();
    }
    // A workload is started again, and one that is not there yet survives.
    sleep(Duration::from_millis(50)).await;
    if let Ok(pid) = agent.pid() {
        let _ = kill(pid, Signal::SIGTERM);
    }
    let ended = agent.ended().await.unwrap();
    let code = ended.code.expect("nobody killed the agent");
    // Without a last event the agent must have said why on standard error.
    if ended.end()["event"] == "ended" {
        assert_eq!(ended.end()["exit_code"], code);
        let detail = ended.end()["detail"].as_str().unwrap();
        assert!(!detail.is_empty());
        format!("code {code}: {detail}")
    } else if code == 0 && ended.events.is_empty() {
        "told to stop before it had begun".to_owned()
    } else {
        let last = ended.stderr.lines().last().unwrap_or_default();
        assert!(
            code != 0 && last.starts_with("error: "),
            "code {code}: {last}"
        );
        format!("code {code}: {last}")
    }
}
