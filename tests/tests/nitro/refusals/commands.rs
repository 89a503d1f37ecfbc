//! The agent's commands.

use enclave_tests::nitro::{ADDRESS, IMAGE, Layout, Limits, PROBE, Parent, cid};

use super::{hold, is_in_page, set_pages, start, whole};
use crate::{CONFIG, POOL, boot, configuration, pages};

/// The enclave that the agent starts, or tries to.
const NAME: &str = "a";

/// What is done to the instance before a command.
type Change = fn(&mut Parent);

/// A command of the agent's that fails: why, what is done before it, its arguments, its exit
/// code and words of its error.
type Failure = (
    &'static str,
    Change,
    &'static [&'static str],
    i32,
    &'static str,
);

const RUN: [&str; 6] = ["run", IMAGE, "--name", NAME, "--hypervisor", "nitro"];
const BOOTSTRAP: [&str; 3] = ["bootstrap", "--until", "cpus"];
/// Takes a device from the driver.
const UNBIND: &str = "/sys/bus/pci/drivers/nitro_enclaves/unbind";

/// What follows one after the other in an instance that was just booted.
const FAILURES: [Failure; 15] = [
    (
        "`run` without the driver",
        |_| {},
        &["--cpus", "2", "--memory-mib", "256"],
        4,
        "/dev/nitro_enclaves cannot be opened",
    ),
    (
        "`bootstrap` of an enclave with a part of a core",
        |it| configure(it, &[(NAME, 1, 64)]),
        &BOOTSTRAP,
        22,
        "an enclave has whole cores: give it 2",
    ),
    (
        "`bootstrap` of more CPUs than a NUMA node has",
        |it| configure(it, &[(NAME, 10, 64)]),
        &BOOTSTRAP,
        22,
        "NUMA node 1 has 8 CPUs for enclaves",
    ),
    (
        "`bootstrap` of more memory than the NUMA node has",
        |it| configure(it, &[(NAME, 2, 1536)]),
        &BOOTSTRAP,
        21,
        "of 1536 MiB as huge pages on NUMA node 1",
    ),
    (
        "`run` without a pool",
        |it| {
            let undone = it.agent(&["bootstrap", "--undo", "--until", "cpus"]);
            assert_eq!(undone.unwrap().code, Some(0));
        },
        &["--cpus", "2", "--memory-mib", "256"],
        4,
        "NE_CREATE_VM: the pool has no CPU left",
    ),
    (
        "`run` without huge pages",
        |it| it.write(POOL, "8-11").unwrap(),
        &["--cpus", "2", "--memory-mib", "256"],
        4,
        "0 MiB of 256 MiB are there as huge pages on NUMA node 1",
    ),
    (
        "`run` with huge pages of the other NUMA node",
        |it| set_pages(it, 0, 128),
        &["--cpus", "2", "--memory-mib", "256"],
        4,
        "0 MiB of 256 MiB are there as huge pages on NUMA node 1",
    ),
    (
        "`run` with too few huge pages",
        |it| set_pages(it, 1, 100),
        &["--cpus", "2", "--memory-mib", "256"],
        4,
        "200 MiB of 256 MiB are there as huge pages on NUMA node 1",
    ),
    (
        "`run` with more CPUs than the pool has",
        |it| set_pages(it, 1, 256),
        &["--cpus", "6", "--memory-mib", "256"],
        4,
        "NE_ADD_VCPU: the pool has no CPU left",
    ),
    (
        "`run` with a part of a core",
        |_| {},
        &["--cpus", "1", "--memory-mib", "256"],
        4,
        "NE_START_ENCLAVE: the enclave has a part of a core",
    ),
    (
        "`run` with more regions of memory than there can be",
        |it| {
            it.device.limit(Some(Limits {
                enclaves: 4,
                regions: 0,
            }));
        },
        &["--cpus", "2", "--memory-mib", "256"],
        4,
        "NE_SET_USER_MEMORY_REGION: there are too many memory regions",
    ),
    (
        "`run` beside as many enclaves as there can be",
        |it| {
            it.device.limit(Some(Limits {
                enclaves: 0,
                regions: 1,
            }));
        },
        &["--cpus", "2", "--memory-mib", "256"],
        4,
        "NE_CREATE_VM: No space left on device",
    ),
    (
        "`run` with the identifier of another's enclave",
        |it| {
            it.device.limit(None);
            // From now on.
            hold(it, &[whole(128), vec![start(cid(NAME).into())]].concat());
        },
        &["--cpus", "2", "--memory-mib", "256"],
        4,
        "NE_START_ENCLAVE: Address already in use",
    ),
    (
        "`bootstrap` of a larger pool, with another's enclave",
        |it| configure(it, &[(NAME, 6, 64)]),
        &BOOTSTRAP,
        22,
        "stop those that were started otherwise than by this configuration",
    ),
    (
        "`bootstrap` without a device",
        |it| {
            let holder = it.find(PROBE).unwrap();
            it.kill(holder[0]).unwrap();
            it.wait(holder[0]).unwrap();
            it.write(UNBIND, ADDRESS).unwrap();
        },
        &BOOTSTRAP,
        20,
        "EnclaveOptions",
    ),
];

fn configure(parent: &mut Parent, enclaves: &[(&str, u32, u32)]) {
    parent.write(CONFIG, &configuration(enclaves)).unwrap();
}

#[test]
fn driver_refusals_of_what_the_agent_asks_are_told_with_a_code() {
    let mut parent = boot(&Layout::two_nodes(), &[NAME]);
    let mut wrong = Vec::new();
    for (why, change, arguments, code, words) in FAILURES {
        change(&mut parent);
        let held = parent.device.slots();
        let before = pages(&mut parent, 1, "free");
        let is_run = why.starts_with("`run`");
        let start = if is_run { &RUN[..] } else { &[] };
        let ended = parent.agent(&[start, arguments].concat()).unwrap();
        if ended.code != Some(code) || !ended.stderr.contains(words) || !is_in_page(why, code) {
            wrong.push(format!("{why}: {code}, `{words}`, but {ended:?}"));
        }
        // Nothing stays of it.
        assert_eq!(parent.device.slots(), held, "{why}");
        if is_run {
            assert_eq!(pages(&mut parent, 1, "free"), before, "{why}");
            assert!(parent.find("nitro-enclave").unwrap().is_empty(), "{why}");
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(parent.device.faults(), [""; 0]);
}
