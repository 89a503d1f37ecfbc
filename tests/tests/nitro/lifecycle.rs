//! An enclave of the driver's, from its start to its end.

use enclave_tests::nitro::{Layout, Parent, Started, cid};
use serde_json::Value;

use crate::agents::{events, start_ready, wait_for_end};
use crate::{CONFIG, WORKLOAD, boot, configuration, findings, pages};

const NAME: &str = "a";
#[test]
fn run_serves_an_enclave_of_the_drivers() {
    let mut parent = boot(&Layout::two_nodes(), &[NAME]);
    parent
        .write(CONFIG, &configuration(&[(NAME, 2, 256)]))
        .unwrap();
    let reserved = parent.agent(&["bootstrap", "--until", "unit"]).unwrap();
    assert_eq!(reserved.code, Some(0), "{reserved:?}");
    let agent = start_ready(&mut parent, NAME);
    let started = Started {
        cid: cid(NAME),
        debug: false,
        memory_mib: 256,
        nodes: vec![1],
        cpus: vec![10, 11],
    };
    assert_eq!(parent.device.started(), std::slice::from_ref(&started));
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

    doctor_finds_everything_but_systemd(&mut parent);
    bootstrap_changes_nothing(&mut parent);

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
    wait_for_end(&mut parent, agent, NAME, 0);
    let said = lines(&events(&mut parent, NAME));
    assert_eq!(said.len(), 21, "{said:?}");
    assert_eq!(parent.device.slots(), 0);
    assert_eq!(pages(&mut parent, 1, "free"), 128);

    // The holder of the enclave is killed, and another enclave starts at once.
    let agent = start_ready(&mut parent, NAME);
    let holder = parent.find("nitro-enclave").unwrap();
    parent.kill(holder[0]).unwrap();
    wait_for_end(&mut parent, agent, NAME, 12);
    assert_eq!(parent.device.slots(), 0);
    let agent = start_ready(&mut parent, NAME);
    // The machine ends by itself, as when its kernel panics.
    parent.device.end(cid(NAME));
    wait_for_end(&mut parent, agent, NAME, 12);
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

fn doctor_finds_everything_but_systemd(parent: &mut Parent) {
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
}

/// Neither CPUs nor memory are taken from under the enclave, nor changed.
fn bootstrap_changes_nothing(parent: &mut Parent) {
    let again = parent.agent(&["bootstrap", "--until", "cpus"]).unwrap();
    assert_eq!(again.code, Some(0), "{again:?}");
    parent
        .write(CONFIG, &configuration(&[(NAME, 4, 256)]))
        .unwrap();
    let larger = parent.agent(&["bootstrap", "--until", "cpus"]).unwrap();
    let error = larger.failed_with(22).unwrap();
    assert!(
        error.contains("cannot be changed while enclaves run"),
        "{error}"
    );
    parent
        .write(CONFIG, &configuration(&[(NAME, 2, 256)]))
        .unwrap();
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
}
