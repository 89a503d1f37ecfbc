//! Probes of the workload's health by a command, where the kernel matters: in QEMU.

use std::path::Path;

use enclave_tests::{Agent, Hypervisor, Workload};
use serde_json::Value;

use crate::PROGRAMS;

const TABLES: &str = r#"
[workload.health]
command = ["/app/test-workload", "probe"]
interval = "50ms"
failures = 2
on_unhealthy = "restart"
"#;

fn image() -> Workload {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("health");
    let build = || Workload::build_with(&PROGRAMS, &folder, TABLES);
    Workload::shared(&PROGRAMS, &folder, "test-workload", build).unwrap()
}

#[tokio::test]
async fn health_in_qemu_is_probed_in_the_workloads_container() {
    let (image, qemu) = (image(), Hypervisor::Qemu);
    let mut agent = Agent::start(&PROGRAMS, &image, qemu, "probed", &[]).unwrap();
    agent.line("started first").await.unwrap();
    // Whatever the probe finds other than in the workload is in the reason.
    agent.line("probed").await.unwrap();
    let is_exit = |event: &Value| event["event"] == "workload_exited";
    let exited = agent.event(is_exit).await.unwrap();
    assert_eq!(exited["code"], "workload.unhealthy", "{exited}");
    let is_reason = |event: &Value| {
        let text = event["text"].as_str().unwrap_or_default();
        event["stream"] == "errors" && text.contains("told to fail")
    };
    agent.event(is_reason).await.unwrap();
    agent.line("started again").await.unwrap();
    let ended = agent.stopped().await.unwrap();
    assert_eq!(ended.code, Some(0), "{}", ended.end());
}
