//! A workload that is root, and whose image allows it namespaces of its own.

use enclave_tests::Hypervisor;

use crate::hostile::{Hostile, User};

#[tokio::test]
async fn qemu_limits_hold_above_the_groups_that_a_workload_can_write() {
    let mut enclave = Hostile::start(Hypervisor::Qemu, User::Namespaces).await;
    let lifted = enclave.ask("lift").await;
    // What the workload sees as its group is its own to change.
    assert_eq!(lifted, "lifted memory.max pids.max cpu.weight");
    assert_eq!(
        enclave.ask("try text /sys/fs/cgroup/pids.max").await,
        "done max"
    );
    let mut taking = enclave.begin("forks").await;
    let taken = taking.line().await;
    let count = taken.strip_prefix("full ").and_then(|rest| {
        let (count, error) = rest.split_once(' ')?;
        (error == "EAGAIN").then(|| count.parse::<u32>().ok())?
    });
    assert!(count.is_some_and(|count| count < 300), "{taken}");
    drop(taking);
    enclave.until_it_listens().await;
    enclave.answers("after the limits were lifted").await;
    let ended = enclave.agent.stopped().await.unwrap();
    assert_eq!(ended.code, Some(0), "{}", ended.end());
}

#[tokio::test]
async fn qemu_the_inits_place_cannot_be_taken() {
    let mut enclave = Hostile::start(Hypervisor::Qemu, User::Namespaces).await;
    assert_eq!(enclave.ask("usurp").await, "planted");
    enclave.until_it_listens().await;
    // Nothing of the workload's has run as PID 1 of the new run.
    assert_eq!(enclave.ask("try text /reign").await, "refused ENOENT");
    assert_eq!(enclave.ask("try status Seccomp").await, "done 2");
    enclave.answers("after its place was wanted").await;
    let ended = enclave.agent.stopped().await.unwrap();
    assert_eq!(ended.code, Some(0), "{}", ended.end());
}
