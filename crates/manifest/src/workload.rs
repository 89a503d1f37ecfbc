//! What runs in the enclave and how it is kept running.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::health::Health;
use crate::process::{Command, Environment, WorkingDirectory};
use crate::units::{Backoff, Interval};

/// The longest time between SIGTERM and SIGKILL: the agent waits for an enclave's end no
/// longer than this.
pub const MAX_STOP_GRACE: Duration = Duration::from_secs(300);

/// How the enclave ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkloadKind {
    /// Serves requests until it is stopped; every exit is subject to the restart policy.
    Service,
    /// Runs until it is stopped, serves nothing; every exit is subject to the restart policy.
    Daemon,
    /// Runs once; its exit ends the enclave, and exit code 0 is success.
    Batch,
}

/// When the workload is started again after it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// Never: the enclave ends with the workload.
    Never,
    /// After a non-zero exit code or a signal.
    OnFailure,
    /// After every exit.
    Always,
}

/// The `restart` table of a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Restart {
    /// When to restart.
    pub policy: RestartPolicy,
    /// How many restarts in a row are tried before the enclave ends. The count
    /// starts again once the workload has run for ten times the longest delay.
    pub max: u32,
    /// The delays between restarts.
    pub backoff: Backoff,
}

/// A user and group by number: what the kernel knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.uid, self.gid)
    }
}

/// The workload as it is measured: every default applied, every name resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    /// How the enclave ends.
    pub kind: WorkloadKind,
    /// Program and arguments.
    pub command: Command,
    /// The environment: the image's, overlaid with the manifest's.
    pub env: Environment,
    /// The directory that the program starts in.
    pub working_directory: WorkingDirectory,
    /// Whom it runs as.
    pub user: User,
    /// When it is started again.
    pub restart: Restart,
    /// How its health is probed, if at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// How long it has between SIGTERM and SIGKILL.
    pub stop_grace: Interval,
}

impl Default for Restart {
    fn default() -> Self {
        Self {
            policy: RestartPolicy::OnFailure,
            max: 5,
            backoff: Backoff::DEFAULT,
        }
    }
}

impl Restart {
    /// Never: what a batch workload has.
    pub const NEVER: Self = Self {
        policy: RestartPolicy::Never,
        max: 0,
        backoff: Backoff::DEFAULT,
    };
}
