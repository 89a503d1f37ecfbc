//! What an enclave's agent knows of it.

mod gate;
mod table;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use enclave_host::duration::milliseconds;
use enclave_host::image::Pcrs;
use log_sinks::telemetry::{LogsStatus, Telemetry};
use manifest::EnclaveName;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::channels::egress::Egress;
use crate::clock::ClockStatus;
use crate::crash::{Crash, LastEnd};
use crate::credentials::{CredentialsStatus, Renewals};
use crate::enclave::{
    BootStep, Cause, Code, Health, LimitsStatus, Phase, SecretsStatus, WorkloadsHealth,
};
use crate::history::{History, Reported};
use crate::ingress::{IngressPort, OpenPort};
use crate::kms::KmsStatus;
use crate::self_check::SelfCheck;
use crate::throttle;
use crate::traffic::{Counts, InitPlaces};

pub use gate::{GateBoard, GateStatus, Verdict};

#[cfg(test)]
pub(crate) use table::tests::eventful;

/// Most boot steps that are remembered.
const MAX_STEPS: usize = 64;

/// How the enclave of this name ended the last time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EarlierEnd {
    /// When, in microseconds since 1970.
    pub time_us: u64,
    /// Its cause.
    pub cause: Cause,
    /// What kind of crash it was, if it was one.
    pub crash: Option<Crash>,
    /// The enclave's own code for it, if it gave one.
    pub code: Option<Code>,
    /// Crashes in a row, this one included.
    pub crashes: u32,
}

impl EarlierEnd {
    /// The last end of the enclave `name`, if one is known.
    pub(crate) fn read(name: &EnclaveName) -> Option<Self> {
        let end = LastEnd::read(name)?;
        Some(Self {
            time_us: end.time_us,
            cause: end.cause,
            crash: end.crash,
            code: end.code,
            crashes: end.crashes,
        })
    }
}

/// An ingress port and what it has carried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IngressStatus {
    /// The port.
    #[serde(flatten)]
    pub port: OpenPort,
    /// What it has carried.
    #[serde(flatten)]
    pub counts: Counts,
}

/// An egress destination and what was carried there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EgressStatus {
    /// `host:port`.
    pub destination: String,
    /// What was carried there.
    #[serde(flatten)]
    pub counts: Counts,
}

/// The answer to `GET /v1/status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The enclave's name.
    pub name: String,
    /// Where it is in its life.
    pub state: Phase,
    /// Milliseconds since the agent started it.
    pub uptime_ms: u64,
    /// The image's path.
    pub image: String,
    /// The hypervisor's name.
    pub hypervisor: String,
    /// Whether its registers read as zero.
    pub debug: bool,
    /// Its context identifier, where it has one.
    pub cid: Option<u32>,
    /// The agent's process.
    pub process_id: u32,
    /// The agent's release.
    pub agent_version: String,
    /// The init's release, once it has told.
    pub init_version: Option<String>,
    /// The boot's identifier, hex, once it is known.
    pub boot: Option<String>,
    /// What the enclave found when it verified its own document, once it has told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub self_check: Option<SelfCheck>,
    /// The workload's health.
    pub health: Health,
    /// How often the workload was started again, or any of several.
    pub restarts: u64,
    /// How each of several workloads is.
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    pub workloads: WorkloadsHealth,
    /// The enclave's clock, once its init has told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<ClockStatus>,
    /// Times that the agent was not run for seconds, as after SIGSTOP.
    #[serde(default)]
    pub agent_pauses: u64,
    /// What the workload's limits have refused it.
    #[serde(default)]
    pub limits: LimitsStatus,
    /// The secrets that the image declares, once its init has told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secrets: Option<SecretsStatus>,
    /// How the enclave of this name ended the last time, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_end: Option<EarlierEnd>,
    /// What the image measures to.
    pub pcrs: Pcrs,
    /// The ports that are open for it.
    pub ingress: Vec<IngressStatus>,
    /// The destinations that it has asked for.
    pub egress: Vec<EgressStatus>,
    /// How often the init had no place for a connection.
    #[serde(default)]
    pub init_places: InitPlaces,
    /// The calls to KMS that the init has made, once it has told of any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kms: Option<KmsStatus>,
    /// The AWS credentials that the enclave is handed, if its image gets any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<CredentialsStatus>,
    /// Lines that this agent did not write because there were too many, by kind.
    #[serde(default)]
    pub lines_left_out: BTreeMap<String, u64>,
    /// The boot steps so far.
    pub boot_steps: Vec<BootStep>,
    /// The log records, their spool and its sinks.
    pub logs: LogsStatus,
    /// The attestation gate, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<GateStatus>,
}

/// What does not change while an enclave runs.
#[derive(Debug, Clone)]
pub struct Fixed {
    /// The enclave's name.
    pub name: String,
    /// The image's path.
    pub image: String,
    /// The hypervisor's name.
    pub hypervisor: &'static str,
    /// Whether its registers read as zero.
    pub debug: bool,
    /// What the image measures to.
    pub pcrs: Pcrs,
    /// How the enclave of this name ended the last time.
    pub last_end: Option<EarlierEnd>,
}

/// What the supervisor keeps up to date.
#[derive(Debug)]
pub struct Live {
    /// Where the enclave is in its life.
    pub phase: Phase,
    /// Its context identifier, where it has one.
    pub cid: Option<u32>,
    /// The init's release.
    pub init_version: Option<String>,
    /// The boot's identifier, hex.
    pub boot: Option<String>,
    /// What the enclave found when it verified its own document.
    pub self_check: Option<SelfCheck>,
    /// The workload's health.
    pub health: Health,
    /// Whether the workload was ready once.
    pub was_ready: bool,
    /// How often the workload was started again, or any of several.
    pub restarts: u64,
    /// How each of several workloads is.
    pub workloads: WorkloadsHealth,
    /// The enclave's clock.
    pub clock: Option<ClockStatus>,
    /// Times that the agent was not run.
    pub pauses: u64,
    /// What the workload's limits have refused it.
    pub limits: LimitsStatus,
    /// The secrets that the image declares.
    pub secrets: Option<SecretsStatus>,
    /// How often the init had no place for a connection.
    pub places: InitPlaces,
    /// The calls to KMS that the init has made.
    pub kms: Option<KmsStatus>,
    /// What became of the AWS credentials that it is handed, if its image gets any.
    pub(crate) credentials: Option<Arc<Renewals>>,
    /// What of the enclave's life was told already.
    pub reported: Reported,
    /// The boot steps so far, the first [`MAX_STEPS`].
    steps: Vec<BootStep>,
}

impl Live {
    /// Remembers a boot step.
    pub fn step(&mut self, step: BootStep) {
        if self.steps.len() < MAX_STEPS {
            self.steps.push(step);
        }
    }
}

/// All that is known, shared between the supervisor and the API.
#[derive(Debug)]
pub struct Board {
    start: Instant,
    fixed: Fixed,
    live: Mutex<Live>,
    ingress: Vec<Arc<IngressPort>>,
    egress: Arc<Egress>,
    logs: Arc<Telemetry>,
    gate: Option<Arc<GateBoard>>,
}

impl Board {
    /// The board of an enclave that was started at `start`, with what an
    /// earlier agent knew of it.
    pub fn new(
        fixed: Fixed,
        start: Instant,
        history: History,
        ingress: Vec<Arc<IngressPort>>,
        egress: Arc<Egress>,
        logs: Arc<Telemetry>,
        gate: Option<Arc<GateBoard>>,
    ) -> Self {
        logs.go_on(&history.lost, history.missing);
        Self {
            start,
            fixed,
            live: Mutex::new(Live {
                phase: Phase::Starting,
                cid: None,
                init_version: history.init_version,
                boot: history.boot,
                self_check: history.self_check,
                health: Health {
                    state: "starting".to_owned(),
                    detail: String::new(),
                },
                was_ready: history.ready,
                restarts: history.restarts,
                workloads: history.workloads,
                clock: None,
                pauses: 0,
                limits: history.limits,
                secrets: None,
                places: history.places,
                kms: history.kms,
                credentials: None,
                reported: history.reported,
                steps: history.boot_steps,
            }),
            ingress,
            egress,
            logs,
            gate,
        }
    }

    /// Where the enclave is in its life.
    pub fn phase(&self) -> Phase {
        self.update(|live| live.phase)
    }

    /// What is known of its logs.
    pub fn logs(&self) -> &Telemetry {
        &self.logs
    }

    /// How long ago the enclave was started.
    pub fn uptime(&self) -> Duration {
        self.start.elapsed()
    }

    /// Changes what is known.
    pub fn update<T>(&self, change: impl FnOnce(&mut Live) -> T) -> T {
        change(&mut self.live.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts what the next agent must know into its history.
    pub(crate) fn remember(&self, history: &watch::Sender<History>) {
        // Under the lock, so that of two who do so at once the later one knows more.
        self.update(|live| {
            let (lost, missing) = self.logs.lost_in_enclave();
            let known = History {
                boot: live.boot.clone(),
                init_version: live.init_version.clone(),
                self_check: live.self_check.clone(),
                ready: live.was_ready,
                restarts: live.restarts,
                workloads: live.workloads.clone(),
                limits: live.limits,
                places: live.places,
                kms: live.kms.clone(),
                lost,
                missing,
                reported: live.reported,
                boot_steps: live.steps.clone(),
            };
            history.send_if_modified(|before| {
                let has_changed = *before != known;
                *before = known;
                has_changed
            });
        });
    }

    /// What is known now.
    pub fn read(&self) -> Status {
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        Status {
            name: self.fixed.name.clone(),
            state: live.phase,
            uptime_ms: milliseconds(self.start.elapsed()),
            image: self.fixed.image.clone(),
            hypervisor: self.fixed.hypervisor.to_owned(),
            debug: self.fixed.debug,
            cid: live.cid,
            process_id: std::process::id(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            init_version: live.init_version.clone(),
            boot: live.boot.clone(),
            self_check: live.self_check.clone(),
            health: live.health.clone(),
            restarts: live.restarts,
            workloads: live.workloads.clone(),
            clock: live.clock.clone(),
            agent_pauses: live.pauses,
            limits: live.limits,
            secrets: live.secrets,
            last_end: self.fixed.last_end.clone(),
            pcrs: self.fixed.pcrs.clone(),
            ingress: self
                .ingress
                .iter()
                .map(|port| IngressStatus {
                    port: port.describe(),
                    counts: port.traffic.read(),
                })
                .collect(),
            egress: self
                .egress
                .counts()
                .into_iter()
                .map(|(destination, counts)| EgressStatus {
                    destination,
                    counts,
                })
                .collect(),
            init_places: live.places,
            kms: live.kms.clone(),
            credentials: live.credentials.as_ref().map(|renewals| renewals.read()),
            lines_left_out: throttle::left_out(),
            boot_steps: live.steps.clone(),
            logs: self.logs.read(),
            gate: self.gate.as_ref().map(|gate| gate.read()),
        }
    }
}
