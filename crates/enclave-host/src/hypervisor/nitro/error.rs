//! The driver's errors, with what can be done about each.
//!
//! Source: `include/uapi/linux/nitro_enclaves.h`.

use std::io;

use thiserror::Error;

/// Why an enclave could not be launched.
#[derive(Debug, Error)]
pub(super) enum LaunchError {
    /// The driver has refused a call.
    #[error("{call}: {}", explain(error))]
    Driver {
        /// The call.
        call: &'static str,
        /// Its error, whose text would repeat the number.
        error: io::Error,
    },
    /// There are no huge pages.
    #[error(
        "{mapped} MiB of {wanted} MiB are there as huge pages{}: {error}; reserve them with `parent-agent bootstrap`, or as nr_hugepages of the NUMA node",
        node.map_or_else(String::new, |node| format!(" on NUMA node {node}, which the CPUs are of"))
    )]
    NoHugePages {
        /// What is there, in MiB.
        mapped: u64,
        /// What is needed, in MiB.
        wanted: u64,
        /// Where, if they must be of one node.
        node: Option<u32>,
        /// Why there is no more.
        error: io::Error,
    },
    /// The memory has no room for the image.
    #[error(
        "the image needs {needed} MiB of the enclave's memory, which has {memory} MiB: give it more with memory_mib"
    )]
    ImageTooLarge {
        /// What the image needs, in MiB.
        needed: u64,
        /// What there is, in MiB.
        memory: u64,
    },
    /// The image cannot be read.
    #[error("the image cannot be read: {0}")]
    Image(io::Error),
}

/// Why the device cannot be opened.
pub(super) fn opening(error: &io::Error) -> String {
    let advice = match error.kind() {
        io::ErrorKind::NotFound => {
            "launch the instance with EnclaveOptions enabled, on a type that supports enclaves, and load the module nitro_enclaves (`parent-agent bootstrap` does)"
        }
        io::ErrorKind::PermissionDenied => "run it as root, or as a member of the device's group",
        _ => "`parent-agent doctor` shows what the instance lacks",
    };
    format!("/dev/nitro_enclaves cannot be opened: {error}; {advice}")
}

/// An error of the driver, in words.
fn explain(error: &io::Error) -> String {
    let code = error.raw_os_error().unwrap_or_default();
    let words = match code {
        256 => "the CPU belongs to an enclave already; name fewer CPUs, or end another enclave",
        257 => "the CPU is not in the pool; `parent-agent bootstrap` makes one",
        258 => "the CPU's core is not one of the pool; `parent-agent bootstrap` makes one",
        259 => "the size of a memory region is no multiple of 2 MiB; give memory_mib as one",
        260 | 261 => "a memory region lies where it must not; this is an error of the agent",
        262 => "a memory region belongs to an enclave already; this is an error of the agent",
        263 => "memory is not made of huge pages; reserve them with `parent-agent bootstrap`",
        264 => {
            "memory and CPUs are of different NUMA nodes; empty the pool and the huge pages, and have `parent-agent bootstrap` reserve both"
        }
        265 => "there are too many memory regions; reserve larger huge pages, or give less memory",
        266 => "the enclave has no memory; give it some with memory_mib",
        267 => "the enclave has no CPUs; give it some with cpus",
        268 => "the enclave has less memory than the least that is possible; raise memory_mib",
        269 => {
            "a core is shared with the instance; give cpus as a multiple of the threads of a core"
        }
        270 => "the enclave runs already; this is an error of the agent",
        271 => "there is no such CPU; `parent-agent bootstrap` makes a new pool",
        272 => {
            "the pool has no CPU left; end another enclave, name fewer CPUs, or have `parent-agent bootstrap` make a larger pool"
        }
        273 => "the huge pages are of a size that the driver does not take; reserve ones of 2 MiB",
        274 => "the driver is older than the agent, and does not know a flag; update the kernel",
        275 => "the context identifier belongs to another enclave; choose another name",
        // ENOMEM and EINVAL of the hypervisor itself.
        12 => "the kernel has no memory for it; end something else, or give the enclave less",
        22 => "the hypervisor refuses it; does the instance have EnclaveOptions enabled?",
        _ => return error.to_string(),
    };
    format!("{words} (error {code})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_of_the_driver_says_what_to_do() {
        for code in 256..=275 {
            let text = explain(&io::Error::from_raw_os_error(code));
            assert!(
                text.contains("; ") && text.ends_with(&format!("(error {code})")),
                "{text}"
            );
        }
        let other = explain(&io::Error::from_raw_os_error(5));
        assert!(other.contains("os error 5"), "{other}");
    }
}
