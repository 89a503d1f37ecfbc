//! A workload that has the kernel allocate: what it takes counts as its own memory, and
//! the init, its log and its answers go on.
//!
//! Only in QEMU: a simulated enclave shares this machine's kernel.

use std::time::Duration;

use enclave_tests::Hypervisor;
use tokio::time::timeout;

use crate::hostile::{Hostile, User};

/// What is taken without an end, and so many as are taken to be counted.
const KINDS: [(&str, u32); 6] = [
    ("answers", 20),
    ("socket-filters", 200),
    ("call-filters", 20),
    ("terminals", 100),
    ("unaccepted", 2),
    ("watches", 100),
];

/// Longer than it takes to fill the memory, but for what is slow under emulation.
const HOARDING: Duration = Duration::from_secs(45);

/// Takes all that there is of a kind: until something is refused, or a process or all of
/// the workload is ended for it.
async fn is_hoarded(enclave: &mut Hostile, kind: &str) {
    let mut hoarding = enclave.begin(&format!("hoard {kind}")).await;
    // It may still be at it.
    match timeout(HOARDING, hoarding.line()).await {
        Ok(end) => {
            println!("{kind}: {end}");
            // Who says it may be killed while it does.
            let ends = ["full ", "killed"];
            let is_end = end.is_empty() || ends.iter().any(|word| end.starts_with(word));
            assert!(is_end, "{kind}: {end:?}");
        }
        Err(_) => println!("{kind}: no end within {HOARDING:?}"),
    }
    enclave.answers_challenges(kind).await;
    drop(hoarding);
    enclave.until_it_listens().await;
    enclave.answers(&format!("after {kind}")).await;
}

async fn everything_is_hoarded(user: User) {
    let mut enclave = Hostile::start(Hypervisor::Qemu, user).await;
    for (kind, _) in KINDS {
        is_hoarded(&mut enclave, kind).await;
    }
    let ended = enclave.agent.stopped().await.unwrap();
    assert_eq!(ended.code, Some(0), "{}", ended.end());
}

#[tokio::test]
async fn qemu_root() {
    everything_is_hoarded(User::Root).await;
}

#[tokio::test]
async fn qemu_user() {
    everything_is_hoarded(User::Ordinary).await;
}

/// In KiB, as the workload reads them: of the machine, and of its control group.
#[tokio::test]
async fn qemu_counted() {
    let enclave = Hostile::start(Hypervisor::Qemu, User::Ordinary).await;
    for (kind, units) in KINDS {
        let said = enclave.ask(&format!("count {kind} {units}")).await;
        println!("{kind}: {said}");
        let numbers = said
            .strip_prefix("lost ")
            .and_then(|rest| rest.split_once(" counted "));
        let (lost, counted) = numbers.unwrap_or_else(|| panic!("{kind}: {said:?}"));
        let (lost, counted): (u64, u64) = (lost.parse().unwrap(), counted.parse().unwrap());
        assert!(lost > 500, "{kind} takes too little to be counted: {said}");
        // The rest is what objects leave of their pages, and what the machine's other
        // programs have taken meanwhile.
        assert!(counted >= lost / 3 * 2, "{kind}: {said}");
    }
    enclave.agent.stopped().await.unwrap();
}
