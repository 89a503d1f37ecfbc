//! Calls of the driver's as no agent makes them: what a test has `nitro-probe` do in the
//! instance. A script makes its own machines, which end with it.

use serde::{Deserialize, Serialize};

/// One thing to do; calls are for the machine that was made last.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Make a machine.
    Create,
    /// Ask where an image of this kind goes.
    ImageOffset(u64),
    /// Map so many huge pages of 2 MiB of a NUMA node.
    Map {
        /// How many.
        pages: u64,
        /// Of which node.
        node: u32,
    },
    /// Read the image into the pages that were mapped last, where it goes.
    Load,
    /// Give the machine memory.
    AddMemory {
        /// Flags.
        flags: u64,
        /// Where it is.
        at: At,
        /// Its size in bytes.
        size: u64,
    },
    /// Give the machine a CPU; 0 is any.
    AddCpu(u32),
    /// Start the machine.
    Start {
        /// Flags.
        flags: u64,
        /// Its context identifier.
        cid: u64,
    },
    /// Have another process that has the machine's descriptor give it a CPU.
    AddCpuElsewhere(u32),
    /// Say what came of the steps before, and stay until somebody kills this process.
    Hold,
}

/// A place in the memory of the process.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum At {
    /// So many bytes behind the beginning of the pages that were mapped last.
    Mapped(u64),
    /// In memory that is not made of huge pages, and begins like one.
    Ordinary,
    /// This address.
    Address(u64),
}

/// What came of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// What the driver answered, or 0.
    Done(u64),
    /// The driver has refused, and the steps behind this one were left out.
    Refused {
        /// The error's number.
        code: i32,
        /// The agent's words for it.
        words: String,
    },
}
