//! What happened to an enclave, for the agent that takes it over next.

use log_sinks::losses;
use serde::{Deserialize, Serialize};

use crate::enclave::{BootStep, LimitsStatus, WorkloadsHealth};
use crate::kms::KmsStatus;
use crate::self_check::SelfCheck;
use crate::traffic::InitPlaces;

/// What happened to an enclave, as far as its init does not tell a second time, and
/// what it has counted: that must neither be told twice nor begin anew.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// The boot's identifier, hex, once it is known.
    pub boot: Option<String>,
    /// The init's release, once it has told.
    pub init_version: Option<String>,
    /// What the enclave found when it verified its own document.
    #[serde(default)]
    pub self_check: Option<SelfCheck>,
    /// Whether the workload was ready once.
    pub ready: bool,
    /// How often the workload was started again.
    pub restarts: u64,
    /// How each of several workloads is.
    #[serde(default)]
    pub workloads: WorkloadsHealth,
    /// What the workload's limits have refused it.
    #[serde(default)]
    pub limits: LimitsStatus,
    /// How often the init had no place for a connection.
    #[serde(default)]
    pub places: InitPlaces,
    /// The calls to KMS that the init has made, once it has told of any.
    #[serde(default)]
    pub kms: Option<KmsStatus>,
    /// Log records that were lost in the enclave, as it tells.
    #[serde(default)]
    pub lost: losses::Counts,
    /// Numbers of log records that it left out.
    #[serde(default)]
    pub missing: u64,
    /// How much of all that was told already.
    #[serde(default)]
    pub reported: Reported,
    /// The boot steps so far.
    pub boot_steps: Vec<BootStep>,
}

/// Counts of an enclave's whole life. They go on when another agent takes it over.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LifeTotals {
    /// Restarts of the workload.
    pub restarts: u64,
    /// Log records that were lost in the enclave.
    pub lost: u64,
    /// Processes of the workload that were killed because memory had run out.
    pub oom_kills: u64,
    /// Processes and threads that the workload was refused.
    pub pids_refused: u64,
    /// Times that the enclave's machine was found to have been stopped.
    pub clock_pauses: u64,
}

/// How much of an enclave's life was told already, by whichever agent.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reported {
    /// In metrics.
    pub metrics: LifeTotals,
    /// In records of what went wrong.
    pub incidents: LifeTotals,
}
