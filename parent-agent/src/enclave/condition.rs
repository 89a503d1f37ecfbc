//! How an enclave is, as its init tells.

use std::fmt;
use std::ops::Deref;

use link::control::{SecretCounts, WorkloadState};
use manifest::{MAX_WORKLOADS, WorkloadName};
use serde::{Deserialize, Serialize};

/// A boot step that ended well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootStep {
    /// Its name.
    pub name: String,
    /// Microseconds from the init's start to its end.
    pub at_us: u64,
    /// Microseconds that it took.
    pub took_us: u64,
}

/// The workload's health.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// `starting`, `healthy` or `unhealthy`.
    pub state: String,
    /// Why; may be empty.
    pub detail: String,
}

impl Health {
    /// The state of a workload that runs and is not unhealthy: if it is probed, fewer probes in a
    /// row have failed than would make it so.
    pub(crate) const HEALTHY: &'static str = "healthy";

    /// Whether it is in that state.
    pub fn is_healthy(&self) -> bool {
        self.state == Self::HEALTHY
    }
}

/// How one of several workloads is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloadHealth {
    /// Its name.
    pub name: String,
    /// `waiting`, `starting`, `running`, `unhealthy`, `finished` or `failed`.
    pub state: String,
    /// Why; may be empty.
    pub detail: String,
    /// How often it was started again.
    pub restarts: u64,
}

/// How several workloads are, in the order in which the enclave has told of them; empty if
/// there is only one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WorkloadsHealth(Vec<WorkloadHealth>);

impl WorkloadsHealth {
    /// Takes in what the enclave says of one now. Gives it if that is news.
    pub fn told(
        &mut self,
        name: &str,
        state: WorkloadState,
        detail: &str,
    ) -> Option<&WorkloadHealth> {
        let workload = self.of(name)?;
        let is_same = workload.state == state.name() && workload.detail == detail;
        state.name().clone_into(&mut workload.state);
        detail.clone_into(&mut workload.detail);
        (!is_same).then_some(workload)
    }

    /// The place of the workload of this name.
    pub fn place(&self, name: &str) -> Option<usize> {
        self.0.iter().position(|workload| workload.name == name)
    }

    /// Counts a restart.
    pub fn restarted(&mut self, name: &str) {
        if let Some(workload) = self.of(name) {
            workload.restarts = workload.restarts.saturating_add(1);
        }
    }

    /// The workload of this name. There are no more than an image can have, and what is no
    /// name of a workload is none, whatever the enclave says.
    fn of(&mut self, name: &str) -> Option<&mut WorkloadHealth> {
        if let Some(index) = self.place(name) {
            return self.0.get_mut(index);
        }
        if self.0.len() >= MAX_WORKLOADS || name.parse::<WorkloadName>().is_err() {
            return None;
        }
        self.0.push(WorkloadHealth {
            name: name.to_owned(),
            state: WorkloadState::Starting.name().to_owned(),
            detail: String::new(),
            restarts: 0,
        });
        self.0.last_mut()
    }
}

impl Deref for WorkloadsHealth {
    type Target = [WorkloadHealth];

    fn deref(&self) -> &[WorkloadHealth] {
        &self.0
    }
}

impl fmt::Display for WorkloadHealth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.state)?;
        match self.restarts {
            0 => {}
            1 => f.write_str(", 1 restart")?,
            restarts => write!(f, ", {restarts} restarts")?,
        }
        match self.detail.as_str() {
            "" => Ok(()),
            detail => write!(f, ": {detail}"),
        }
    }
}

/// What the workload's limits have refused it, in the enclave's whole life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitsStatus {
    /// Processes that were killed because memory had run out.
    pub oom_kills: u64,
    /// Processes and threads that were refused.
    pub pids_refused: u64,
}

/// What has become of the secrets that the image declares.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretsStatus {
    /// Declared.
    pub declared: u32,
    /// Delivered, of these.
    pub delivered: u32,
    /// Attempts to look for another ciphertext that failed, in the enclave's whole life.
    pub failed_refreshes: u64,
}

impl SecretsStatus {
    /// Takes in what the enclave says now. No more are delivered than declared, and
    /// failures only grow, whatever it says.
    pub fn told(&mut self, now: SecretCounts) {
        self.declared = now.declared;
        self.delivered = now.delivered.min(now.declared);
        self.failed_refreshes = self.failed_refreshes.max(now.failed_refreshes);
    }

    /// Those that the workload does not have.
    pub fn missing(self) -> u32 {
        self.declared.saturating_sub(self.delivered)
    }

    /// For people.
    pub fn describe(self) -> String {
        let text = format!("{} of {} delivered", self.delivered, self.declared);
        match self.failed_refreshes {
            0 => text,
            failed => format!("{text}, {failed} refreshes failed"),
        }
    }
}

impl LimitsStatus {
    /// Takes in what the enclave says now. Counts only grow, whatever it says.
    pub fn told(&mut self, now: Self) {
        self.oom_kills = self.oom_kills.max(now.oom_kills);
        self.pids_refused = self.pids_refused.max(now.pids_refused);
    }

    /// What was refused, for people.
    pub fn describe(self) -> Option<String> {
        let kills = (self.oom_kills > 0)
            .then(|| format!("{} processes killed for want of memory", self.oom_kills));
        let refused =
            (self.pids_refused > 0).then(|| format!("{} processes refused", self.pids_refused));
        let parts: Vec<_> = kills.into_iter().chain(refused).collect();
        (!parts.is_empty()).then(|| parts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workloads_are_as_many_as_an_image_can_have_whatever_is_told() {
        let mut workloads = WorkloadsHealth::default();
        for number in 0..100 {
            let name = format!("w{number}");
            let told = workloads.told(&name, WorkloadState::Running, "");
            assert_eq!(told.is_some(), number < MAX_WORKLOADS, "{number}");
        }
        let mut workloads = WorkloadsHealth::default();
        for name in ["", "A", "a b", "a\n", "a.b"] {
            assert_eq!(workloads.told(name, WorkloadState::Running, ""), None);
        }
        assert!(workloads.is_empty());
        assert!(workloads.told("web", WorkloadState::Waiting, "x").is_some());
        assert_eq!(workloads.told("web", WorkloadState::Waiting, "x"), None);
        workloads.restarted("web");
        assert_eq!(workloads[0].to_string(), "web waiting, 1 restart: x");
    }
}
