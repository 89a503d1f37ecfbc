//! Four enclaves, which are as many as an instance can have, and what is left when those who
//! run them are killed.

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use enclave_tests::nitro::{AGENT, IMAGE, Layout, Parent, cid};

use crate::agents::{output, start, start_ready, wait_for_end, wait_until};
use crate::{CONFIG, POOL, boot, configuration, findings, pages};

const NAMES: [&str; 4] = ["one", "two", "three", "four"];
/// Pages of each.
const PAGES: u64 = 128;
/// What an enclave has that is to outlive its agent.
const KEEP: [&str; 2] = ["--keep-for", "300s"];
/// Where agents register with the dispatcher.
const DISPATCHER: &str = "/run/enclave-vsock/dispatch.sock";

/// Waits until one enclave has ended, and the kernel has its pages back.
fn wait_for_one_that_ends(parent: &mut Parent) {
    let mut seen = (0, 0);
    for _ in 0..400 {
        seen = (parent.device.slots(), pages(parent, 1, "free"));
        if seen == (3, PAGES) {
            return;
        }
        thread::park_timeout(Duration::from_millis(50));
    }
    panic!("{seen:?}");
}

fn start_dispatcher(parent: &mut Parent) {
    parent
        .spawn(&[AGENT, "dispatch"], "/run/dispatcher")
        .unwrap();
    for _ in 0..200 {
        // A socket that is there is nothing that can be opened (ENXIO).
        let error = parent.bytes(DISPATCHER).unwrap_err().to_string();
        if error.contains("os error 6)") {
            return;
        }
        thread::park_timeout(Duration::from_millis(50));
    }
    panic!("{}", parent.text("/run/dispatcher").unwrap());
}

#[test]
fn dispatch_serves_four_enclaves_that_are_killed_and_started_at_once() {
    let mut parent = boot(&Layout::two_nodes(), &NAMES);
    let all = NAMES.map(|name| (name, 2, 256));
    parent.write(CONFIG, &configuration(&all)).unwrap();
    let reserved = parent.agent(&["bootstrap", "--until", "unit"]).unwrap();
    assert_eq!(reserved.code, Some(0), "{reserved:?}");
    assert_eq!(parent.text(POOL).unwrap(), "4,5,6,7,8,9,10,11");
    assert_eq!(pages(&mut parent, 1, "free"), 4 * PAGES);
    start_dispatcher(&mut parent);

    let agents = NAMES.map(|name| start(&mut parent, name, &KEEP));
    for name in NAMES {
        wait_until(&mut parent, name, "ready");
    }
    let started = parent.device.started();
    let cids: BTreeSet<_> = started.iter().map(|it| it.cid).collect();
    assert_eq!(cids, NAMES.map(cid).into());
    let cpus: BTreeSet<_> = started.iter().flat_map(|it| it.cpus.clone()).collect();
    assert_eq!(cpus, (4..12).collect());
    for enclave in &started {
        assert_eq!((enclave.cpus.len(), enclave.memory_mib), (2, 256));
        assert_eq!(enclave.nodes, [1]);
    }
    assert_eq!(pages(&mut parent, 1, "free"), 0);
    let doctor = parent.agent(&["doctor", "--json"]).unwrap();
    let findings = findings(&doctor);
    for name in NAMES {
        let is_ready = |(whose, state, detail): &(String, String, String)| {
            whose == name && state == "ok" && detail.starts_with("ready, ")
        };
        assert!(findings.iter().any(is_ready), "{findings:?}");
    }
    // There is no place for a fifth.
    let fifth = ["--name", "five", "--cpus", "2", "--memory-mib", "256"];
    let run = ["run", IMAGE, "--hypervisor", "nitro"];
    let refused = parent.agent(&[&run[..], &fifth].concat()).unwrap();
    let error = refused.failed_with(4).unwrap();
    assert!(
        error.contains("NE_CREATE_VM: the pool has no CPU left"),
        "{error}"
    );

    // An agent is killed: its enclave continues, and the next agent takes it over.
    let [one, two, three, four] = agents;
    parent.kill(one).unwrap();
    assert_eq!(parent.wait(one).unwrap(), None);
    let one = start(&mut parent, "one", &KEEP);
    let attached = wait_until(&mut parent, "one", "attached");
    assert_eq!(attached["ready"], true);
    assert_eq!(parent.device.slots(), 4);

    // An agent and the guard are killed: the enclave ends, and the next one is a new one.
    parent.kill(two).unwrap();
    let guard = parent.find("/run/enclaves/two").unwrap();
    assert_eq!(guard.len(), 1);
    parent.kill(guard[0]).unwrap();
    wait_for_one_that_ends(&mut parent);
    let two = start(&mut parent, "two", &KEEP);

    // Meanwhile one stops, one ends by itself, and both start at once.
    parent.device.end(cid("four"));
    let stopped = parent.agent(&["stop", "--name", "three"]).unwrap();
    assert_eq!(stopped.code, Some(0), "{stopped:?}");
    wait_for_end(&mut parent, three, "three", 0);
    let three = start(&mut parent, "three", &KEEP);
    wait_for_end(&mut parent, four, "four", 12);
    let four = start_ready(&mut parent, "four");
    for name in ["two", "three"] {
        wait_until(&mut parent, name, "ready");
    }
    assert_eq!(parent.device.started().len(), 7);
    assert_eq!(parent.device.slots(), 4);

    // Without a time to be kept for, an enclave ends with its agent.
    parent.kill(four).unwrap();
    wait_for_one_that_ends(&mut parent);

    for (name, agent) in [("one", one), ("two", two), ("three", three)] {
        let stopped = parent.agent(&["stop", "--name", name]).unwrap();
        assert_eq!(
            stopped.code,
            Some(0),
            "{stopped:?} {}",
            parent.text(&output(name)).unwrap()
        );
        wait_for_end(&mut parent, agent, name, 0);
    }
    let undone = parent
        .agent(&["bootstrap", "--undo", "--until", "cpus"])
        .unwrap();
    assert_eq!(undone.code, Some(0), "{undone:?}");
    assert_eq!(pages(&mut parent, 1, "nr"), 0);
    assert_eq!(parent.device.faults(), [""; 0]);
}
