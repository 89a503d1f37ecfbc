//! An enclave of the driver's, from its start to its end.

use enclave_tests::nitro::{Layout, Parent, Started, cid};
use serde_json::Value;

use crate::{CONFIG, WORKLOAD, boot, configuration, findings, pages};

const NAME: &str = "a";
/// What an agent of it prints.
const OUTPUT: &str = "/run/output";

/// Starts the enclave's agent, and waits until the enclave is ready.
fn start(parent: &mut Parent) -> u32 {
    let run = [
        "/bin/parent-agent",
        "run",
        "--hypervisor",
        "nitro",
        "--config",
        CONFIG,
        "--name",
        NAME,
        "--json",
    ];
    let pid = parent.spawn(&run, OUTPUT).unwrap();
    wait_until(parent, "ready");
    pid
}

/// The agent's events so far.
fn events(parent: &mut Parent) -> Vec<Value> {
    let text = parent.text(OUTPUT).unwrap();
    text.lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

/// Waits for an event of the agent's.
fn wait_until(parent: &mut Parent, name: &str) {
    for _ in 0..600 {
        if events(parent).iter().any(|event| event["event"] == name) {
            return;
        }
        if parent.find(CONFIG).unwrap().is_empty() {
            break;
        }
        std::thread::park_timeout(std::time::Duration::from_millis(200));
    }
    panic!(
        "no event `{name}`: {} {}",
        parent.text(OUTPUT).unwrap(),
        parent.consoles()
    );
}

#[test]
fn run_serves_an_enclave_of_the_drivers() {
    let mut parent = boot(&Layout::two_nodes(), &[NAME]);
    parent
        .write(CONFIG, &configuration(&[(NAME, 2, 256)]))
        .unwrap();
    let reserved = parent.agent(&["bootstrap", "--until", "unit"]).unwrap();
    assert_eq!(reserved.code, Some(0), "{reserved:?}");
    let agent = start(&mut parent);
    let started = Started {
        cid: cid(NAME),
        debug: false,
        memory_mib: 256,
        nodes: vec![1],
        cpus: vec![10, 11],
    };
    assert_eq!(parent.device.started(), [started.clone()]);
    assert_eq!(pages(&mut parent, 1, "free"), 0);

    // What was loaded is what was measured: the machine read it from the donated pages.
    let nonce = "the nonce of a verifier";
    let document = "/run/document";
    let arguments = [
        "attest",
        "--nonce",
        &hex::encode(nonce),
        "--output",
        document,
    ];
    let attested = parent.agent(&arguments).unwrap();
    assert_eq!(attested.code, Some(0), "{attested:?}");
    let document = parent.bytes(document).unwrap();
    let holds = |bytes: &[u8]| document.windows(bytes.len()).any(|part| part == bytes);
    assert!(holds(nonce.as_bytes()));
    assert!(holds(
        &hex::decode(WORKLOAD.measurements.pcr0.to_string()).unwrap()
    ));

    // Everything but systemd is as it should be.
    let doctor = parent.agent(&["doctor", "--json"]).unwrap();
    assert_eq!(doctor.code, Some(25), "{doctor:?}");
    for (name, state, detail) in findings(&doctor) {
        let (wanted, words) = match name.as_str() {
            "config" => ("ok", "names a"),
            "driver" => ("ok", "/dev/nitro_enclaves is there"),
            "memory" => ("ok", "enclaves run, and have the pages of theirs"),
            "cpus" => ("ok", "the pool has the CPUs 10,11, 2 are needed"),
            "image" => ("ok", "every image is here"),
            "unit" => ("ok", "is in place"),
            "service" => ("fail", "start enclave@a.service"),
            "aws" => ("ok", "nothing needs it"),
            _ => ("ok", "ready, "),
        };
        assert!(
            state == wanted && detail.contains(words),
            "{name}: {state}, {detail}"
        );
    }
    // Neither CPUs nor memory are taken from under it.
    let undo = parent
        .agent(&["bootstrap", "--undo", "--until", "cpus"])
        .unwrap();
    assert!(
        undo.failed_with(22)
            .unwrap()
            .contains("the pool cannot be emptied while enclaves run")
    );
    assert!(
        undo.stdout
            .contains("the huge pages cannot be released while enclaves run")
    );

    let lines = |events: &[Value]| -> Vec<String> {
        let lines = events
            .iter()
            .filter(|event| event["stream"] == "application");
        lines
            .map(|line| line["text"].as_str().unwrap().to_owned())
            .collect()
    };
    let stopped = parent.agent(&["stop"]).unwrap();
    assert_eq!(stopped.code, Some(0), "{stopped:?}");
    assert_eq!(parent.wait(agent).unwrap(), Some(0));
    let said = lines(&events(&mut parent));
    assert_eq!(said.len(), 21, "{said:?}");
    assert_eq!(parent.device.slots(), 0);
    assert_eq!(pages(&mut parent, 1, "free"), 128);

    // The holder of the enclave is killed, and another enclave starts at once.
    let agent = start(&mut parent);
    let holder = parent.find("nitro-enclave").unwrap();
    parent.kill(holder[0]).unwrap();
    assert_eq!(
        parent.wait(agent).unwrap(),
        Some(12),
        "{}",
        parent.text(OUTPUT).unwrap()
    );
    assert_eq!(parent.device.slots(), 0);
    let agent = start(&mut parent);
    // The machine ends by itself, as when its kernel panics.
    parent.device.end(cid(NAME));
    assert_eq!(
        parent.wait(agent).unwrap(),
        Some(12),
        "{}",
        parent.text(OUTPUT).unwrap()
    );
    assert_eq!(
        parent.device.started(),
        [started.clone(), started.clone(), started]
    );

    let undone = parent
        .agent(&["bootstrap", "--undo", "--until", "cpus"])
        .unwrap();
    assert_eq!(undone.code, Some(0), "{undone:?}");
    assert_eq!(pages(&mut parent, 1, "nr"), 0);
    assert_eq!(parent.device.faults(), [""; 0]);
}
