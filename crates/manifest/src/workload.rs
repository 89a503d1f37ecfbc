//! What runs in the enclave and how it is kept running.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::groups::Groups;
use crate::health::{Health, HealthSource};
use crate::limits::Limits;
use crate::name::WorkloadName;
use crate::process::{Command, Environment, UserSource, Words, WorkingDirectory};
use crate::stop_signal::StopSignal;
use crate::units::{Backoff, Interval};
use crate::workloads::Member;

/// How the enclave ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkloadKind {
    /// Serves requests until it is stopped; every exit is subject to the restart policy.
    Service,
    /// Runs until it is stopped, serves nothing; every exit is subject to the restart policy.
    Daemon,
    /// Runs once, and exit code 0 is success. Its exit ends the enclave, unless it is one of
    /// several and has succeeded.
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
    /// Its name; only one of several has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<WorkloadName>,
    /// The workloads that have to be ready before it is started.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<WorkloadName>,
    /// Whether the enclave ends with it.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub essential: bool,
    /// What it may use of what the workloads share.
    #[serde(default, skip_serializing_if = "Limits::is_empty")]
    pub limits: Limits,
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

const fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
const fn is_yes(value: &bool) -> bool {
    *value
}

impl Workload {
    /// What sentences call it.
    pub fn subject(&self) -> String {
        match (&self.name, self.kind) {
            (Some(name), WorkloadKind::Batch) => format!("the batch {name}"),
            (Some(name), _) => format!("the workload {name}"),
            (None, WorkloadKind::Batch) => "the batch".to_owned(),
            (None, _) => "the workload".to_owned(),
        }
    }
}

/// Implements [`Member`] for what has these fields.
macro_rules! member {
    ($type:ty, $essential:expr) => {
        impl Member for $type {
            fn name(&self) -> Option<&WorkloadName> {
                self.name.as_ref()
            }

            fn after(&self) -> &[WorkloadName] {
                &self.after
            }

            fn stop_grace(&self) -> Duration {
                self.stop_grace.as_duration()
            }

            fn is_essential(&self) -> bool {
                let essential: fn(&Self) -> Option<bool> = $essential;
                essential(self).unwrap_or(true)
            }

            fn is_batch(&self) -> bool {
                self.kind == WorkloadKind::Batch
            }

            fn of_several(&self) -> Option<&'static str> {
                let essential: fn(&Self) -> Option<bool> = $essential;
                [
                    ("name", self.name.is_some()),
                    ("after", !self.after.is_empty()),
                    ("essential", essential(self).is_some()),
                    ("limits", !self.limits.is_empty()),
                ]
                .into_iter()
                .find_map(|(key, is_given)| is_given.then_some(key))
            }
        }
    };
}
// Being essential is what goes without saying.
member!(Workload, |workload| (!workload.essential).then_some(false));
member!(WorkloadSource, |source| source.essential);

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

/// The `[workload]` table, or one of `[[workload]]`: what is absent comes from the OCI image's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WorkloadSource {
    /// Its name; only one of several has one.
    pub name: Option<WorkloadName>,
    /// The workloads that have to be ready before it is started; none unless given.
    pub after: Vec<WorkloadName>,
    /// Whether the enclave ends with it; it does unless given.
    pub essential: Option<bool>,
    /// What it may use of what the workloads share; all of it unless given.
    pub limits: Limits,
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
            name: None,
            after: Vec::new(),
            essential: None,
            limits: Limits::default(),
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
