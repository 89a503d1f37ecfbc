//! Pools of CPUs.

use std::thread;
use std::time::Duration;

use enclave_tests::nitro::probe::Step;
use enclave_tests::nitro::{Layout, Parent};

use super::{hold, is_in_page};
use crate::{POOL, boot};

/// Pools that the driver refuses: what is wrong, the pool, the error, and what the kernel's
/// log says.
const POOLS: [(&str, &str, i32, &str); 9] = [
    ("the CPU 0", "0,1", 22, "CPU 0 has to remain available"),
    (
        "the sibling of the CPU 0",
        "1",
        22,
        "CPU sibling 1 for CPU 0 is in CPU pool",
    ),
    ("a part of a core", "4", 22, "CPU 5 is not in CPU pool"),
    (
        "CPUs of two NUMA nodes",
        "2-5",
        22,
        "CPUs with different NUMA nodes",
    ),
    (
        "a CPU that is offline",
        "6,7",
        22,
        "CPU 7 is offline, has to be online",
    ),
    (
        "a CPU that no machine has",
        "9000",
        34,
        "Error in cpulist parse [rc=-34]",
    ),
    ("no list", "x", 22, "Error in cpulist parse [rc=-22]"),
    ("no CPU", "\n", 22, "No CPUs available in CPU pool"),
    (
        "any, while there is an enclave",
        "8-11",
        1,
        "The CPU pool is used by enclave(s)",
    ),
];

#[test]
fn driver_refusals_of_pools_empty_them() {
    let mut parent = boot(&Layout::two_nodes(), &[]);
    parent.run(&["/bin/modprobe", "nitro_enclaves"]).unwrap();
    let online = "/sys/devices/system/cpu/online";
    let cpu = "/sys/devices/system/cpu/cpu7/online";
    for (what, pool, code, log) in POOLS {
        let is_used = code == 1;
        if what.contains("offline") {
            parent.write(cpu, "0").unwrap();
        } else {
            // Each write gives the CPUs back first.
            parent.write(POOL, "8,9").unwrap();
        }
        let holder = is_used.then(|| hold(&mut parent, &[Step::Create]));
        let error = parent.write(POOL, pool).unwrap_err().to_string();
        assert!(
            error.contains(&format!("os error {code})")),
            "{what}: {error}"
        );
        wait_for_log(&parent, log);
        let left = if is_used { "8,9" } else { "" };
        assert_eq!(parent.text(POOL).unwrap(), left, "{what}");
        if let Some(holder) = holder {
            parent.kill(holder).unwrap();
            parent.wait(holder).unwrap();
        } else if what.contains("offline") {
            parent.write(cpu, "1").unwrap();
        }
        if !is_used {
            assert_eq!(parent.text(online).unwrap(), "0-11", "{what}");
        }
        assert!(is_in_page(what, code), "{what}");
    }
    assert_eq!(parent.device.faults(), [""; 0]);
}

/// Waits until the kernel's log has these words.
fn wait_for_log(parent: &Parent, words: &str) {
    for _ in 0..100 {
        if parent.consoles().contains(words) {
            return;
        }
        thread::park_timeout(Duration::from_millis(50));
    }
    panic!("`{words}` is not in {}", parent.consoles());
}
