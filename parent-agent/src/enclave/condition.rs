//! How an enclave is, as its init tells.

use link::control::SecretCounts;
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
