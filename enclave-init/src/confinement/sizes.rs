//! How much the workload may use, from what the image says and what the machine
//! has: the parent chooses the memory, so it is known only here.

use std::path::Path;

use manifest::{Confinement, LogBuffer, Mebibytes};
use nix::sys::statvfs::statvfs;

use crate::error::{Doing, InitError};
use crate::mounts::Room;

/// Memory that the workload leaves alone, beside the log's and that of connections: the
/// init without any, and the kernel's own needs.
const RESERVE: u64 = 24 * 1024 * 1024;
/// The log's records once more, as they are compressed and sent.
const RESERVED_LOG_BUFFERS: u64 = 2;
/// At most this part of the memory is reserved where there is little.
const PART_OF_LITTLE: u64 = 2;
/// Processes and threads, unless the image or the kernel says fewer.
const PIDS: u64 = 4096;
/// The part of the kernel's processes that the workload may have, where that is
/// fewer.
const PART_OF_ALL_PIDS: u64 = 2;
/// Parts of the workload's memory that files may take.
const PART_OF_ROOT: u64 = 2;
const PART_OF_TMP: u64 = 4;
const PART_OF_SHM: u64 = 8;
const PART_OF_RUN: u64 = 16;

/// Limits in bytes, and a number of processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sizes {
    /// For processes and the files that they write.
    pub(crate) memory: u64,
    pub(crate) pids: u64,
    /// Room in `/` beside the image's files.
    pub(crate) root: u64,
    pub(crate) tmp: u64,
    pub(crate) run: u64,
    pub(crate) shm: u64,
}

impl Sizes {
    /// The sizes for this machine, of which connections may take so many bytes. `/proc`
    /// must be mounted.
    pub(crate) fn here(
        confinement: &Confinement,
        buffer: LogBuffer,
        memory: Memory,
        connections: u64,
    ) -> Result<Self, InitError> {
        let log = (buffer.bytes() as u64).saturating_mul(RESERVED_LOG_BUFFERS);
        let reserve = RESERVE.saturating_add(log).saturating_add(connections);
        // Every thread has a number, too.
        let threads = limit_of("threads-max")?.min(limit_of("pid_max")?);
        Ok(Self::new(confinement, reserve, memory.available, threads))
    }

    /// What of this is for files.
    pub(crate) fn room(&self) -> Room {
        Room {
            root: self.root,
            run: self.run,
            shm: self.shm,
            tmp: self.tmp,
        }
    }

    fn new(confinement: &Confinement, reserve: u64, available: u64, threads: u64) -> Self {
        let reserve = reserve.min(available / PART_OF_LITTLE);
        let most = available.saturating_sub(reserve);
        let limit = |size: Option<Mebibytes>, most: u64, otherwise: u64| {
            size.map_or(otherwise, |size| size.bytes().min(most))
        };
        let memory = limit(confinement.memory_mib, most, most);
        let file_limit = |size, part| limit(size, memory, memory / part);
        let most_pids = threads / PART_OF_ALL_PIDS;
        let pids = confinement.pids.map_or(PIDS, |pids| pids.get().into());
        Self {
            memory,
            pids: pids.min(most_pids),
            root: file_limit(confinement.root_mib, PART_OF_ROOT),
            tmp: file_limit(confinement.tmp_mib, PART_OF_TMP),
            run: file_limit(confinement.run_mib, PART_OF_RUN),
            shm: file_limit(confinement.shm_mib, PART_OF_SHM),
        }
    }
}

/// The machine's memory in bytes (`/proc/meminfo`, `proc_meminfo(5)`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Memory {
    /// What the kernel manages.
    pub(crate) total: u64,
    /// What programs can use of it.
    available: u64,
}

impl Memory {
    /// The memory of this machine. `/proc` must be mounted.
    pub(crate) fn read() -> Result<Self, InitError> {
        let file = "/proc/meminfo";
        let text = std::fs::read_to_string(file).doing(|| format!("reading {file}"))?;
        let found = |name| {
            bytes(&text, name)
                .ok_or_else(|| std::io::Error::other(format!("it does not say {name}")))
                .doing(|| format!("reading {file}"))
        };
        Ok(Self {
            total: found("MemTotal")?,
            available: found("MemAvailable")?,
        })
    }

    /// The memory of a simulation, whose files are in a file system of its size.
    pub(crate) fn of(tree: &Path) -> Result<Self, InitError> {
        let found = statvfs(tree).doing(|| format!("looking at {}", tree.display()))?;
        let bytes = |blocks: u64| blocks.saturating_mul(found.fragment_size());
        Ok(Self {
            total: bytes(found.blocks()),
            available: bytes(found.blocks_free()),
        })
    }
}

fn bytes(text: &str, name: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// A number below `/proc/sys/kernel`. A kernel that says something else has no such
/// limit.
fn limit_of(name: &str) -> Result<u64, InitError> {
    let file = format!("/proc/sys/kernel/{name}");
    let text = std::fs::read_to_string(&file).doing(|| format!("reading {file}"))?;
    Ok(text.trim().parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1024 * 1024;

    fn sizes(confinement: &str, available: u64) -> Sizes {
        let confinement = serde_json::from_str(confinement).unwrap();
        Sizes::new(&confinement, 56 * MIB, available, 8000)
    }

    #[test]
    fn confinement_sizes_leave_a_reserve() {
        let gibibyte = sizes("{}", 1024 * MIB);
        assert_eq!(gibibyte.memory, 968 * MIB);
        assert_eq!(gibibyte.pids, 4000);
        assert_eq!(gibibyte.root, 484 * MIB);
        assert_eq!(gibibyte.tmp, 242 * MIB);
        assert_eq!(gibibyte.shm, 121 * MIB);
        assert_eq!(sizes("{}", 40 * MIB).memory, 20 * MIB);
    }

    #[test]
    fn confinement_sizes_are_the_images_as_far_as_the_memory_goes() {
        let text = r#"{"memory_mib": 100, "pids": 20, "tmp_mib": 7, "run_mib": 200}"#;
        let sizes = sizes(text, 1024 * MIB);
        assert_eq!(sizes.memory, 100 * MIB);
        assert_eq!(sizes.pids, 20);
        assert_eq!((sizes.tmp, sizes.run), (7 * MIB, 100 * MIB));
        let more = r#"{"memory_mib": 5000, "pids": 1000000}"#;
        let capped = self::sizes(more, 1024 * MIB);
        assert_eq!((capped.memory, capped.pids), (968 * MIB, 4000));
    }

    #[test]
    fn confinement_reads_the_memory_that_is_available() {
        let text = "MemTotal:        1 kB\nMemAvailable:    1000 kB\n";
        assert_eq!(bytes(text, "MemAvailable"), Some(1_024_000));
        assert_eq!(bytes(text, "MemTotal"), Some(1024));
        assert_eq!(bytes(text, "Mem"), None);
        assert_eq!(bytes("MemAvailable: x kB\n", "MemAvailable"), None);
    }

    proptest! {
        #[test]
        fn confinement_sizes_never_take_the_reserve(available: u64, memory in 1u32..1_048_576) {
            let text = format!(r#"{{"memory_mib": {memory}, "tmp_mib": {memory}}}"#);
            let sizes = sizes(&text, available);
            prop_assert!(sizes.memory <= available - (available / 2).min(56 * MIB));
            prop_assert!(sizes.tmp <= sizes.memory);
        }
    }
}
