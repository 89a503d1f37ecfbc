//! What runs in the enclave and how it is kept running.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::groups::Groups;
use crate::health::{Health, HealthSource};
use crate::process::{Command, Environment, UserSource, Words, WorkingDirectory};
use crate::stop_signal::StopSignal;
use crate::units::{Backoff, Interval};

/// The longest time between the stop signal and SIGKILL: the agent waits for an enclave's end no
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
    /// Whether a process that reaps is PID 1 of the workload's namespace, and not the program.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub init: bool,
    /// The environment: the image's, overlaid with the manifest's.
    pub env: Environment,
    /// The directory that the program starts in.
    pub working_directory: WorkingDirectory,
    /// Whom it runs as.
    pub user: User,
    /// The groups that it is in beside its user's primary one.
    #[serde(default, skip_serializing_if = "none")]
    pub groups: Groups,
    /// When it is started again.
    pub restart: Restart,
    /// How its health is probed, if at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// What asks it to stop.
    #[serde(default)]
    pub stop_signal: StopSignal,
    /// How long it has between that and SIGKILL.
    pub stop_grace: Interval,
    /// Whether it gets the AWS credentials of the instance that the enclave runs on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub aws_credentials: bool,
}

fn none(groups: &Groups) -> bool {
    groups.is_empty()
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

/// The `[workload]` table: what is absent comes from the OCI image's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WorkloadSource {
    /// How the enclave ends; `service` unless given.
    pub kind: WorkloadKind,
    /// Program and first arguments; the image's entrypoint unless given. If it is given, the
    /// image's command is not used.
    pub entrypoint: Option<Words>,
    /// What follows the entrypoint; the image's command unless given.
    pub command: Option<Words>,
    /// Whether a process that reaps is PID 1 of the workload's namespace, and not the program;
    /// not unless given.
    pub init: bool,
    /// Added to the image's environment.
    pub env: Environment,
    /// The image's user unless given, root if that has none.
    pub user: Option<UserSource>,
    /// The image's working directory unless given, `/` if that has none.
    pub working_directory: Option<WorkingDirectory>,
    /// When it is started again; never for a batch workload, otherwise
    /// [`Restart::default`] unless given.
    pub restart: Option<Restart>,
    /// How its health is probed; the image's `HEALTHCHECK` unless given.
    pub health: Option<HealthSource>,
    /// What asks it to stop; the image's unless given, SIGTERM if that has none.
    pub stop_signal: Option<StopSignal>,
    /// Between that and SIGKILL; `10s` unless given.
    pub stop_grace: Interval,
    /// Whether it gets the AWS credentials of the instance that the enclave runs on; not
    /// unless given.
    pub aws_credentials: bool,
}

impl Default for WorkloadSource {
    fn default() -> Self {
        Self {
            kind: WorkloadKind::Service,
            entrypoint: None,
            command: None,
            init: false,
            env: Environment::default(),
            user: None,
            working_directory: None,
            restart: None,
            health: None,
            stop_signal: None,
            stop_grace: Interval::DEFAULT_STOP_GRACE,
            aws_credentials: false,
        }
    }
}

impl WorkloadSource {
    /// When the workload is started again, the default applied.
    pub fn restart(&self) -> Restart {
        self.restart.unwrap_or(match self.kind {
            WorkloadKind::Batch => Restart::NEVER,
            WorkloadKind::Service | WorkloadKind::Daemon => Restart::default(),
        })
    }
}
