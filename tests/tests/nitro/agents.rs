//! Agents in the instance, each of which runs an enclave.

use std::thread;
use std::time::Duration;

use enclave_tests::nitro::{AGENT, Parent};
use serde_json::Value;

use crate::CONFIG;

/// Between looks at what an agent has printed.
const POLL: Duration = Duration::from_millis(200);
/// How many there are: more than a boot takes.
const LOOKS: u32 = 600;

/// What an enclave's agent prints.
pub(crate) fn output(name: &str) -> String {
    format!("/run/output-{name}")
}

/// Starts the agent of an enclave of the configuration, with these options too.
pub(crate) fn start(parent: &mut Parent, name: &str, options: &[&str]) -> u32 {
    let run = [AGENT, "run", "--hypervisor", "nitro", "--config", CONFIG];
    let command = [&run[..], &["--name", name, "--json"], options].concat();
    parent.spawn(&command, &output(name)).unwrap()
}

/// The events of an enclave's last agent so far.
pub(crate) fn events(parent: &mut Parent, name: &str) -> Vec<Value> {
    let text = parent.text(&output(name)).unwrap();
    text.lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

/// Waits for an event of an enclave's last agent.
pub(crate) fn wait_until(parent: &mut Parent, name: &str, event: &str) -> Value {
    for _ in 0..LOOKS {
        let mut events = events(parent, name).into_iter();
        if let Some(found) = events.find(|found| found["event"] == event) {
            return found;
        }
        // Its name is a word of nobody else's command line.
        if parent.find(name).unwrap().is_empty() {
            break;
        }
        thread::park_timeout(POLL);
    }
    panic!(
        "no event `{event}` of {name}: {} {}",
        parent.text(&output(name)).unwrap(),
        parent.consoles()
    );
}

/// Starts an enclave, and waits until it is ready.
pub(crate) fn start_ready(parent: &mut Parent, name: &str) -> u32 {
    let agent = start(parent, name, &[]);
    wait_until(parent, name, "ready");
    agent
}

/// What an agent that has ended has said last.
pub(crate) fn wait_for_end(parent: &mut Parent, agent: u32, name: &str, code: i32) {
    let ended = parent.wait(agent).unwrap();
    assert_eq!(
        ended,
        Some(code),
        "{name}: {}",
        parent.text(&output(name)).unwrap()
    );
}
