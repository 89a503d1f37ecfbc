//! A workload that takes everything of one kind: the init, its logs and its
//! answers go on, and what happened has a name.
//!
//! Only in QEMU: a simulated enclave shares this machine's memory and processes.

use enclave_tests::{Hypervisor, Workload};

use crate::hostile::{Hostile, PROGRAMS, User, folder, manifest};

/// Has a command take something, which then keeps it, or is ended for it.
async fn is_taken(enclave: &mut Hostile, command: &str) {
    let mut taking = enclave.begin(command).await;
    let taken = taking.line().await;
    println!("{command}: {taken}");
    match taken.split(' ').collect::<Vec<_>>()[..] {
        ["full", count, _] => {
            enclave.answers_challenges(command).await;
            // A line that was written when there was nothing left.
            enclave.agent.line(&format!("held {count}")).await.unwrap();
        }
        // Alone, or with the rest of the workload, which is started again.
        ["killed", "9"] | [""] => {}
        _ => panic!("{command}: {taken:?}"),
    }
    drop(taking);
    enclave.until_it_listens().await;
    enclave.answers(&format!("after {command}")).await;
}

async fn everything_is_taken(user: User) {
    let mut enclave = Hostile::start(Hypervisor::Qemu, user).await;
    is_taken(&mut enclave, "spin 16").await;
    is_taken(&mut enclave, "descriptors").await;
    is_taken(&mut enclave, "threads").await;
    is_taken(&mut enclave, "forks").await;
    until_there_is_room(&mut enclave).await;
    for _ in 0..10 {
        let orphans = enclave.ask("orphans 1000").await;
        assert_eq!(orphans, "left 1000");
    }
    enclave.answers("after 10,000 orphans").await;
    for folder in ["/tmp", "/dev/shm", "/run", "/"] {
        let command = format!("fill {folder}");
        if user == User::Ordinary && ["/run", "/"].contains(&folder) {
            let refused = enclave.ask(&command).await;
            assert!(refused.contains("denied"), "{command}: {refused}");
            continue;
        }
        is_taken(&mut enclave, &command).await;
    }
    memory_is_taken(&mut enclave).await;
    enclave.agent.stopped().await.unwrap();
}

/// Processes that took all there was are killed, and some of them still begin others.
async fn until_there_is_room(enclave: &mut Hostile) {
    for _ in 0..100 {
        if enclave.ask("orphans 1").await == "left 1" {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("the places of processes that were killed are not given back");
}

/// Until the kernel ends the process that took it, and says so.
async fn memory_is_taken(enclave: &mut Hostile) {
    let mut taking = enclave.begin("memory").await;
    assert_eq!(taking.line().await, "begun");
    // The process, or all of the workload with it.
    let end = taking.line().await;
    assert!(["", "killed 9"].contains(&end.as_str()), "{end:?}");
    enclave.until_it_listens().await;
    enclave.answers("after all memory was taken").await;
    // The init tells of it once a second.
    let mut status = enclave.agent.status().await.unwrap();
    for _ in 0..30 {
        if status["limits"]["oom_kills"] != 0 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        status = enclave.agent.status().await.unwrap();
    }
    let kills = status["limits"]["oom_kills"].as_u64();
    assert!(kills.is_some_and(|kills| kills > 0), "{status}");
    let refused = status.pointer("/limits/pids_refused");
    let refused = refused.and_then(serde_json::Value::as_u64);
    assert!(refused.is_some_and(|refused| refused > 0), "{status}");
}

#[tokio::test]
async fn qemu_root() {
    everything_is_taken(User::Root).await;
}

#[tokio::test]
async fn qemu_user() {
    everything_is_taken(User::Ordinary).await;
}

#[tokio::test]
async fn qemu_flood_of_lines() {
    let mut enclave = Hostile::start(Hypervisor::Qemu, User::Ordinary).await;
    let mut flood = enclave.begin("flood").await;
    assert_eq!(flood.line().await, "begun");
    for round in 0..3 {
        enclave
            .answers_challenges(&format!("flood, round {round}"))
            .await;
    }
    drop(flood);
    enclave.until_it_listens().await;
    enclave.answers("after the flood").await;
    let ended = enclave.agent.stopped().await.unwrap();
    assert_eq!(ended.code, Some(0), "{}", ended.end());
}

/// One whose main process takes all memory, and that is not started again.
#[tokio::test]
async fn qemu_end_for_lack_of_memory_is_named() {
    let text = manifest("1000:1000").replace("restart = {", "command = [\"memory\"]\nrestart = {");
    let text = text.replace("on-failure", "never");
    let folder = folder("memory");
    let image = Workload::build_from(&PROGRAMS, &folder, "hostile-workload", &[], &text).unwrap();
    let agent = enclave_tests::Agent::start(&PROGRAMS, &image, Hypervisor::Qemu, "", &[]).unwrap();
    let ended = agent.ended().await.unwrap();
    println!("{}", ended.end());
    assert_eq!(ended.code, Some(10), "{}\n{}", ended.end(), ended.stderr);
    assert_eq!(ended.end()["cause"], "workload-failed");
    assert_eq!(ended.end()["code"], "workload.out-of-memory");
    let detail = ended.end()["detail"].as_str().unwrap();
    assert!(detail.contains("memory"), "{detail}");
}
