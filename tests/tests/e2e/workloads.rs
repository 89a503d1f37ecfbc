//! Several workloads in one enclave: order, ends and limits, as the agent tells of them.

use enclave_tests::{Agent, Hypervisor, Workload};
use serde_json::Value;

use crate::{PROGRAMS, image_of, under_both};

under_both!(
    workloads_start_in_order_and_go_on_without_one_that_is_not_essential,
    essential_workload_that_fails_ends_the_enclave_by_its_name,
);

const MANIFEST: &str = r#"
[enclave]
name = "several"
image = "oci:image"
memory_mib = 256

[network]
ingress = [{ port = 8080, to = 8080 }]
"#;

/// An image with these workloads.
fn image(name: &str, workloads: &str) -> Workload {
    image_of(
        &format!("workloads-{name}"),
        &format!("{MANIFEST}{workloads}"),
    )
}

/// Waits until a workload is in a state.
async fn state(agent: &mut Agent, name: &str, state: &str) -> Value {
    let is_so = |event: &Value| {
        event["event"] == "workload" && event["name"] == name && event["state"] == state
    };
    agent.event(is_so).await.unwrap()
}

async fn workloads_start_in_order_and_go_on_without_one_that_is_not_essential(
    hypervisor: Hypervisor,
) {
    let image = image(
        "order",
        r#"
[[workload]]
name = "web"
entrypoint = ["/app/test-workload", "sleep"]
after = ["migrate"]

[[workload]]
name = "migrate"
kind = "batch"
entrypoint = ["/app/test-workload", "as", "exit 0"]
after = ["db"]

[[workload]]
name = "db"
entrypoint = ["/app/test-workload", "as", "serve"]
health = { tcp = 8080 }

[[workload]]
name = "metrics"
entrypoint = ["/app/test-workload", "as", "exit 3"]
essential = false
restart = { policy = "on-failure", max = 2, backoff = "10ms..20ms" }
"#,
    );
    let mut agent = Agent::start(&PROGRAMS, &image, hypervisor, "", &[]).unwrap();
    agent.ready().await.unwrap();
    state(&mut agent, "web", "running").await;
    let given_up = state(&mut agent, "metrics", "failed").await;
    assert_eq!(
        given_up["detail"],
        "the workload metrics ended with exit code 3"
    );

    let status = agent.status().await.unwrap();
    let workloads = status["workloads"].as_array().unwrap();
    let found: Vec<_> = workloads
        .iter()
        .map(|workload| (workload["name"].as_str(), workload["state"].as_str()))
        .collect();
    let expected = [
        ("web", "running"),
        ("migrate", "finished"),
        ("db", "running"),
        ("metrics", "failed"),
    ];
    assert_eq!(
        found,
        expected.map(|(name, state)| (Some(name), Some(state)))
    );
    assert_eq!(workloads[3]["restarts"], 2, "{status}");
    assert_eq!(status["health"]["state"], "healthy", "{status}");
    let table = agent.command("status", &[]).await.unwrap();
    let table = String::from_utf8(table).unwrap();
    assert!(
        table.contains("workload    metrics failed, 2 restarts"),
        "{table}"
    );

    let ended = agent.stopped().await.unwrap();
    assert_eq!(ended.code, Some(0), "{}", ended.end());
    let started: Vec<_> = ended
        .records("system")
        .filter(|record| {
            record["text"]
                .as_str()
                .unwrap()
                .starts_with("workload started")
        })
        .map(|record| record["workload"].as_str().unwrap())
        .filter(|name| *name != "metrics")
        .collect();
    assert_eq!(started, ["db", "migrate", "web"]);
    let mut lines = ended.records("application");
    let is_of_db = |record: &Value| record["text"] == "listening" && record["workload"] == "db";
    assert!(lines.any(is_of_db));
    let exited = |event: &&Value| event["event"] == "workload_exited";
    let exits: Vec<_> = ended.events.iter().filter(exited).collect();
    assert!(
        exits.iter().any(|exit| exit["workload"] == "metrics"),
        "{exits:?}"
    );
}

async fn essential_workload_that_fails_ends_the_enclave_by_its_name(hypervisor: Hypervisor) {
    let image = image(
        "essential",
        r#"
[[workload]]
name = "db"
entrypoint = ["/app/test-workload", "as", "serve"]
health = { tcp = 8080 }

[[workload]]
name = "web"
entrypoint = ["/app/test-workload", "as", "exit 3"]
after = ["db"]
restart = { policy = "never" }
"#,
    );
    let agent = Agent::start(&PROGRAMS, &image, hypervisor, "", &[]).unwrap();
    let ended = agent.ended().await.unwrap();
    assert_eq!(ended.code, Some(10), "{}", ended.end());
    assert_eq!(ended.end()["detail"], "the workload web ended with code 3");
    assert_eq!(ended.end()["code"], "workload.exit-code");
}

#[tokio::test]
async fn limits_in_qemu_are_one_workloads_and_leave_the_other_alone() {
    let image = image(
        "limits",
        r#"
[[workload]]
name = "eater"
entrypoint = ["/app/test-workload", "eat"]
essential = false
restart = { policy = "never" }
limits = { memory_mib = 24, pids = 20 }

[[workload]]
name = "db"
entrypoint = ["/app/test-workload", "as", "serve"]
health = { tcp = 8080 }
limits = { cpu_weight = 200 }
"#,
    );
    let mut agent = Agent::start(&PROGRAMS, &image, Hypervisor::Qemu, "", &[]).unwrap();
    let killed = state(&mut agent, "eater", "failed").await;
    let detail = killed["detail"].as_str().unwrap();
    assert!(
        detail.ends_with("signal SIGKILL: its memory had run out"),
        "{detail}"
    );
    agent.ready().await.unwrap();
    let is_line = |event: &Value| {
        let text = event["text"].as_str().unwrap_or_default();
        event["workload"] == "eater"
            && text.contains("limits.memory_mib bounds what it has, 24 MiB")
    };
    agent.event(is_line).await.unwrap();
    let status = agent.status().await.unwrap();
    assert_eq!(status["limits"]["oom_kills"], 1, "{status}");
    assert_eq!(status["state"], "ready", "{status}");
    let ended = agent.stopped().await.unwrap();
    assert_eq!(ended.code, Some(0), "{}", ended.end());
    let exits = ended.events.iter();
    let mut exits = exits.filter(|event| event["event"] == "workload_exited");
    let exit = exits.next().unwrap();
    assert_eq!(exit["code"], "workload.out-of-memory", "{exit}");
    assert_eq!(exits.next(), None);
}

#[tokio::test]
async fn limits_of_processes_in_qemu_are_one_workloads_or_all_of_theirs() {
    let image = image(
        "pids",
        r#"
[confinement]
pids = 60

[[workload]]
name = "db"
entrypoint = ["/app/test-workload", "as", "serve"]
health = { tcp = 8080 }

[[workload]]
name = "limited"
entrypoint = ["/app/test-workload", "as", "bomb"]
after = ["db"]
essential = false
restart = { policy = "never" }
limits = { pids = 20 }

[[workload]]
name = "bomb"
entrypoint = ["/app/test-workload", "as", "bomb"]
after = ["db"]
essential = false
restart = { policy = "never" }
"#,
    );
    let mut agent = Agent::start(&PROGRAMS, &image, Hypervisor::Qemu, "", &[]).unwrap();
    agent.ready().await.unwrap();
    let mut wanted = vec![
        (Some("limited"), "limits.pids bounds how many there are, 20"),
        (
            None,
            "confinement.pids bounds how many all workloads together have, 60",
        ),
    ];
    // In whichever order they come.
    while !wanted.is_empty() {
        let is_line = |event: &Value, (name, text): &(Option<&str>, &str)| {
            event["workload"].as_str() == *name
                && event["text"]
                    .as_str()
                    .is_some_and(|found| found.contains(text))
        };
        let is_wanted = |event: &Value| wanted.iter().any(|line| is_line(event, line));
        let event = agent.event(is_wanted).await.unwrap();
        wanted.retain(|line| !is_line(&event, line));
    }
    let ended = agent.stopped().await.unwrap();
    assert_eq!(ended.code, Some(0), "{}", ended.end());
}

#[tokio::test]
async fn memory_in_qemu_that_all_workloads_have_used_is_not_ones_own_limit() {
    let image = image(
        "memory",
        r#"
[[workload]]
name = "db"
entrypoint = ["/app/test-workload", "as", "serve"]
health = { tcp = 8080 }

[[workload]]
name = "eater"
entrypoint = ["/app/test-workload", "eat"]
after = ["db"]
essential = false
restart = { policy = "never" }
limits = { memory_mib = 256 }
"#,
    );
    let mut agent = Agent::start(&PROGRAMS, &image, Hypervisor::Qemu, "", &[]).unwrap();
    let is_line = |event: &Value| {
        let text = event["text"].as_str().unwrap_or_default();
        event["workload"].is_null()
            && text.contains("all workloads together have used what there is for them")
            && text.contains("enclave.memory_mib bounds it")
    };
    agent.event(is_line).await.unwrap();
    let ended = agent.stopped().await.unwrap();
    assert_eq!(ended.code, Some(0), "{}", ended.end());
    let texts = ended.records("errors");
    let mut texts = texts.map(|record| record["text"].as_str().unwrap());
    assert!(!texts.any(|text| text.contains("limits.memory_mib")));
}

#[tokio::test]
async fn cpu_weight_in_qemu_shares_busy_processors() {
    let image = image(
        "weight",
        r#"
[[workload]]
name = "light"
kind = "batch"
entrypoint = ["/app/test-workload", "as", "spin 20"]
limits = { cpu_weight = 10 }

[[workload]]
name = "heavy"
kind = "batch"
entrypoint = ["/app/test-workload", "as", "spin 20"]
limits = { cpu_weight = 1000 }
"#,
    );
    let agent = Agent::start(&PROGRAMS, &image, Hypervisor::Qemu, "", &[]).unwrap();
    let ended = agent.ended().await.unwrap();
    assert_eq!(ended.code, Some(0), "{}", ended.end());
    let rounds = |name: &str| {
        let mut records = ended.records("application");
        let spun = records.find(|record| record["workload"] == name).unwrap();
        let text = spun["text"].as_str().unwrap();
        text.strip_prefix("spun ").unwrap().parse::<u64>().unwrap()
    };
    let (light, heavy) = (rounds("light"), rounds("heavy"));
    // By a hundred, but for what either does before the other has begun.
    assert!(heavy > light.saturating_mul(4), "{heavy} beside {light}");
}
