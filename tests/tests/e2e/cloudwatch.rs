//! From the workload's pipes to CloudWatch Logs, as two emulators understand it.

use std::collections::BTreeMap;

use enclave_tests::emulator::{Emulator, Kind};
use enclave_tests::{Agent, Hypervisor};

use crate::{IMAGE, PROGRAMS};

const GROUP: &str = "/aws/ec2/enclave/workload";

fn run(service: &Emulator, hypervisor: Hypervisor, role: &str) -> Agent {
    Agent::start_with(
        &PROGRAMS,
        &IMAGE,
        hypervisor,
        role,
        &["--sink", "cloudwatch", "--sink", "stdout"],
        &service.environment(),
    )
    .unwrap()
}

async fn every_line_arrives(kind: Kind, hypervisor: Hypervisor, count: usize) {
    let service = Emulator::start(kind).await.unwrap();
    let mut agent = run(&service, hypervisor, &format!("lines {count}"));
    agent.line("done").await.unwrap();
    // The end waits for what is on its way.
    agent.stopped().await.unwrap();
    let messages = service.messages(GROUP, "application").await.unwrap();
    assert_eq!(messages.len(), count + 1);
    // Standard output and standard error are two pipes: each has its order.
    let mut next = BTreeMap::from([(0, 0), (1, 1)]);
    for message in messages {
        let Some(number) = message.strip_prefix("line ") else {
            assert_eq!(message, "done");
            continue;
        };
        let number: usize = number.parse().unwrap();
        let next = next.get_mut(&(number % 2)).unwrap();
        assert_eq!(number, *next);
        *next += 2;
    }
    let system = service.messages(GROUP, "system").await.unwrap();
    assert!(!system.is_empty());
}

#[tokio::test]
async fn cloudwatch_gets_every_line_in_ministack() {
    every_line_arrives(Kind::Ministack, Hypervisor::Sim, 50_000).await;
}

#[tokio::test]
async fn cloudwatch_gets_every_line_in_moto() {
    every_line_arrives(Kind::Moto, Hypervisor::Sim, 20_000).await;
}

#[tokio::test]
async fn cloudwatch_gets_every_line_from_qemu() {
    every_line_arrives(Kind::Ministack, Hypervisor::Qemu, 5_000).await;
}
