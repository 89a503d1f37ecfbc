//! Why an enclave could not be launched, with what can be done about it.

use std::io;

use thiserror::Error;

use super::driver::Refused;

/// Why an enclave could not be launched.
#[derive(Debug, Error)]
pub(super) enum LaunchError {
    /// The driver has refused a call.
    #[error(transparent)]
    Refused(#[from] Refused),
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
