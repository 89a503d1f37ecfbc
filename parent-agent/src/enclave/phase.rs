//! Where an enclave is in its life.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where an enclave is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// The hypervisor is being started.
    Starting,
    /// The machine runs; the workload does not yet.
    Booting,
    /// The workload runs.
    Ready,
    /// The end has begun.
    Ending,
    /// It is gone.
    Ended,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Starting => "starting",
            Self::Booting => "booting",
            Self::Ready => "ready",
            Self::Ending => "ending",
            Self::Ended => "ended",
        })
    }
}
