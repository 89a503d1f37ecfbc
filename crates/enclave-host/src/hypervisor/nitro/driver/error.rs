//! The driver's errors, with what can be done about each.

use std::io;

use thiserror::Error;

/// The driver has refused a call, or the hypervisor has, which it asks.
#[derive(Debug, Error)]
#[error("{call}: {}", explain(error))]
pub struct Refused {
    /// The call.
    pub call: &'static str,
    /// Its error, whose text would repeat the number.
    pub error: io::Error,
}

impl Refused {
    /// The error's number, 256 and above for the driver's own; 0 if there is none.
    pub fn code(&self) -> i32 {
        self.error.raw_os_error().unwrap_or_default()
    }
}

/// An error of the driver, in words.
fn explain(error: &io::Error) -> String {
    let code = error.raw_os_error().unwrap_or_default();
    let words = match code {
        256 => "the enclave has this CPU already; this is an error of the agent",
        257 => {
            "the CPU is not in the pool, or another enclave has it; `parent-agent bootstrap` makes a new pool"
        }
        258 => "the CPU's core is not one of the pool; `parent-agent bootstrap` makes a new pool",
        259 => "the size of a memory region is no multiple of 2 MiB; give memory_mib as one",
        260 | 261 => "a memory region lies where it must not; this is an error of the agent",
        262 => "the enclave has this memory already; this is an error of the agent",
        263 => "memory is not made of huge pages; reserve them with `parent-agent bootstrap`",
        264 => {
            "memory and CPUs are of different NUMA nodes; empty the pool and the huge pages, and have `parent-agent bootstrap` reserve both"
        }
        265 => "there are too many memory regions; reserve larger huge pages, or give less memory",
        266 => "the enclave has no memory; give it some with memory_mib",
        267 => "the enclave has no CPUs; give it some with cpus",
        268 => "the enclave has less memory than the least that is possible; raise memory_mib",
        269 => "the enclave has a part of a core; give cpus as a multiple of the threads of a core",
        270 => "the enclave runs already; this is an error of the agent",
        271 => "there is no such CPU; `parent-agent bootstrap` makes a new pool",
        272 => {
            "the pool has no CPU left; end another enclave, name fewer CPUs, or have `parent-agent bootstrap` make a larger pool"
        }
        273 => "the huge pages are of a size that the driver does not take; reserve ones of 2 MiB",
        274 => "the driver is older than the agent, and does not know a flag; update the kernel",
        275 => "no enclave may have this context identifier; this is an error of the agent",
        // ENOMEM and EINVAL of the hypervisor itself.
        12 => "the kernel has no memory for it; end something else, or give the enclave less",
        22 => "the hypervisor refuses it; does the instance have EnclaveOptions enabled?",
        _ => {
            return format!(
                "{error}; the hypervisor or the kernel refuses it, and the kernel's log may say why"
            );
        }
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
        assert!(other.contains("os error 5); "), "{other}");
    }
}
