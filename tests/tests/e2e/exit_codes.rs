//! Every kind of end: its exit code, its cause, and nothing left behind (which
//! [`Agent::ended`](enclave_tests::Agent::ended) checks).

use std::net::TcpListener;
use std::time::Duration;

use enclave_tests::Hypervisor;
use nix::sys::signal::Signal;
use tokio::time::sleep;

use crate::{IMAGE, start, under_both};

under_both!(
    stop_is_orderly,
    sigterm_to_the_agent_is_a_stop,
    stop_grace_ends_in_a_kill_inside,
    restart_starts_a_failing_workload_again_and_gives_up,
    exit_code_of_a_finished_workload_is_0,
    measurements_are_those_of_the_builder,
    log_max_size_counts_losses_to_the_last_line,
);

/// Lines of which most find no room in the smallest spool, and one that says that they
/// are all written.
const LINES: u64 = 400_000;
const WRITTEN: u64 = LINES + 1;

async fn log_max_size_counts_losses_to_the_last_line(hypervisor: Hypervisor) {
    // A destination that never answers.
    let stalled = TcpListener::bind("127.0.0.1:0").unwrap();
    let sink = format!("otlp:http://{}", stalled.local_addr().unwrap());
    let arguments = [
        "--sink",
        "stdout",
        "--sink",
        &sink,
        "--log-max-size",
        "16MiB",
    ];
    let agent = start(hypervisor, &format!("load {LINES}"), &arguments);
    // Until nothing more is stored or dropped.
    let mut before = None;
    loop {
        sleep(Duration::from_secs(3)).await;
        let status = agent.status().await.unwrap();
        let counted = status["logs"]["lost"]["application"]["queue-full"].as_u64();
        if counted.is_some() && counted == before {
            break;
        }
        before = counted;
    }
    let ended = agent.stopped().await.unwrap();
    assert_eq!(ended.code, Some(0));
    let end = ended.end();
    assert_eq!(end["lost"]["complete"], true);
    let lost = &end["lost"]["enclave"]["application"];
    let lost = |reason: &str| lost[reason].as_u64().unwrap_or(0);
    let stored = u64::try_from(ended.records("application").count()).unwrap();
    assert!(lost("ended") > 0, "{end}");
    assert_eq!(
        stored + lost("queue-full") + lost("ended"),
        WRITTEN,
        "{end}"
    );
}

#[tokio::test]
async fn out_of_memory_is_named_without_a_console() {
    let mut agent = start(Hypervisor::Qemu, "eat", &[]);
    let exited = agent.event(|event| event["event"] == "workload_exited");
    let exited = exited.await.unwrap();
    assert_eq!(exited["code"], "workload.out-of-memory");
    let killed = agent.event(|event| {
        let text = event["text"].as_str().unwrap_or_default();
        event["stream"] == "errors" && text.contains("its memory had run out")
    });
    killed.await.unwrap();
    agent.stopped().await.unwrap();
}

async fn stop_is_orderly(hypervisor: Hypervisor) {
    let mut agent = start(hypervisor, "serve", &[]);
    agent.line("listening").await.unwrap();
    let ended = agent.stopped().await.unwrap();
    assert_eq!(ended.code, Some(0));
    assert_eq!(ended.end()["cause"], "stopped");
}

async fn sigterm_to_the_agent_is_a_stop(hypervisor: Hypervisor) {
    let mut agent = start(hypervisor, "serve", &[]);
    agent.line("listening").await.unwrap();
    agent.signal(Signal::SIGTERM).unwrap();
    let ended = agent.ended().await.unwrap();
    assert_eq!(ended.code, Some(0));
    assert_eq!(ended.end()["cause"], "stopped");
}

async fn stop_grace_ends_in_a_kill_inside(hypervisor: Hypervisor) {
    let mut agent = start(hypervisor, "stubborn", &[]);
    agent.line("stubborn").await.unwrap();
    let ended = agent.stopped().await.unwrap();
    assert_eq!(ended.code, Some(0));
    assert_eq!(ended.end()["cause"], "stopped");
    let killed = ended.records("errors").any(|record| {
        record["text"]
            .as_str()
            .unwrap()
            .contains("did not stop within 2s")
    });
    assert!(killed);
}

async fn restart_starts_a_failing_workload_again_and_gives_up(hypervisor: Hypervisor) {
    let agent = start(hypervisor, "exit 7", &[]);
    let ended = agent.ended().await.unwrap();
    assert_eq!(ended.code, Some(10));
    assert_eq!(ended.end()["cause"], "workload-failed");
    assert_eq!(ended.end()["detail"], "the workload ended with code 7");
    let exits = ended
        .events
        .iter()
        .filter(|event| event["event"] == "workload_exited")
        .count();
    assert_eq!(exits, 3, "one start and two restarts");
}

async fn exit_code_of_a_finished_workload_is_0(hypervisor: Hypervisor) {
    let agent = start(hypervisor, "exit 0", &[]);
    let ended = agent.ended().await.unwrap();
    assert_eq!(ended.code, Some(0));
    assert_eq!(ended.end()["cause"], "workload-finished");
}

async fn measurements_are_those_of_the_builder(hypervisor: Hypervisor) {
    let mut agent = start(hypervisor, "serve", &[]);
    agent.ready().await.unwrap();
    let document = agent
        .command("attest", &["--nonce", "c0ffee"])
        .await
        .unwrap();
    // A register's value is in the document byte for byte, whoever signed it.
    for value in [
        IMAGE.measurements.pcr0,
        IMAGE.measurements.pcr1,
        IMAGE.measurements.pcr2,
    ] {
        let bytes = value.as_bytes();
        assert!(
            document.windows(bytes.len()).any(|window| window == bytes),
            "{value}"
        );
    }
    assert_eq!(agent.stopped().await.unwrap().code, Some(0));
}
