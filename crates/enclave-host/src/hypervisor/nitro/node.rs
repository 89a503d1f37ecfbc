//! The NUMA node that an enclave's CPUs are of, and so its memory must be.

use std::fs;
use std::path::Path;

/// The node of the driver's pool, as the kernel's files in `sys` name it; none where
/// there is no pool, or memory has no nodes.
pub(super) fn of_the_pool(sys: &Path) -> Option<u32> {
    let pool = fs::read_to_string(sys.join("module/nitro_enclaves/parameters/ne_cpus")).ok()?;
    // All CPUs of the pool are of one node.
    let first: u32 = pool.trim().split([',', '-']).next()?.parse().ok()?;
    // They are offline: the node's own list has them no more.
    let cpu = sys.join(format!("devices/system/cpu/cpu{first}"));
    fs::read_dir(cpu).ok()?.find_map(|entry| {
        let name = entry.ok()?.file_name();
        name.to_str()?.strip_prefix("node")?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pools_node_is_that_of_its_first_cpu() {
        let sys = tempfile::tempdir().unwrap();
        let parameters = sys.path().join("module/nitro_enclaves/parameters");
        fs::create_dir_all(&parameters).unwrap();
        for (cpu, node) in [(0, 0), (5, 1)] {
            let cpu = sys.path().join(format!("devices/system/cpu/cpu{cpu}"));
            fs::create_dir_all(cpu.join("power")).unwrap();
            fs::create_dir(cpu.join(format!("node{node}"))).unwrap();
        }
        for (pool, node) in [
            ("5,7\n", Some(1)),
            ("5-7\n", Some(1)),
            ("0\n", Some(0)),
            ("\n", None),
            ("9\n", None),
            ("x\n", None),
        ] {
            fs::write(parameters.join("ne_cpus"), pool).unwrap();
            assert_eq!(of_the_pool(sys.path()), node, "{pool}");
        }
        assert_eq!(of_the_pool(Path::new("/nonexistent")), None);
    }
}
