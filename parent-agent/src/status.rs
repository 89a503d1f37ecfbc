//! What an enclave's agent knows of it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use eif::{Measurements, Pcr};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::attach::History;
use crate::channels::egress::Egress;
use crate::clock::ClockStatus;
use crate::console::printable;
use crate::crash::{Crash, LastEnd};
use crate::enclave::{Cause, Code, Phase};
use crate::gate::{GateBoard, GateStatus};
use crate::ingress::IngressPort;
use crate::report::{Port, timestamp};
use crate::self_check::SelfCheck;
use crate::sink::telemetry::{LogsStatus, SinkStatus, Telemetry};
use crate::throttle;
use crate::traffic::{Counts, InitPlaces, PlaceCounts};

/// Most boot steps that are remembered.
const MAX_STEPS: usize = 64;

/// Measured registers by number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pcrs(pub BTreeMap<u8, Pcr>);

impl From<Measurements> for Pcrs {
    fn from(measurements: Measurements) -> Self {
        let mut pcrs = BTreeMap::from([
            (0, measurements.pcr0),
            (1, measurements.pcr1),
            (2, measurements.pcr2),
        ]);
        pcrs.extend(measurements.pcr8.map(|pcr8| (8, pcr8)));
        Self(pcrs)
    }
}

/// The workload's health.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// `starting`, `healthy` or `unhealthy`.
    pub state: String,
    /// Why; may be empty.
    pub detail: String,
}

/// What the workload's limits have refused it, in the enclave's whole life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitsStatus {
    /// Processes that were killed because memory had run out.
    pub oom_kills: u64,
    /// Processes and threads that were refused.
    pub pids_refused: u64,
}

impl LimitsStatus {
    /// Takes in what the enclave says now. Counts only grow, whatever it says.
    pub fn told(&mut self, now: Self) {
        self.oom_kills = self.oom_kills.max(now.oom_kills);
        self.pids_refused = self.pids_refused.max(now.pids_refused);
    }

    fn describe(self) -> Option<String> {
        let kills = (self.oom_kills > 0)
            .then(|| format!("{} processes killed for want of memory", self.oom_kills));
        let refused =
            (self.pids_refused > 0).then(|| format!("{} processes refused", self.pids_refused));
        let parts: Vec<_> = kills.into_iter().chain(refused).collect();
        (!parts.is_empty()).then(|| parts.join(", "))
    }
}

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

impl From<LastEnd> for EarlierEnd {
    fn from(end: LastEnd) -> Self {
        Self {
            time_us: end.time_us,
            cause: end.cause,
            crash: end.crash,
            code: end.code,
            crashes: end.crashes,
        }
    }
}

impl EarlierEnd {
    fn describe(&self) -> String {
        let mut text = format!("{} at {}", self.cause, timestamp(self.time_us));
        if let Some(crash) = self.crash {
            let _ = write!(text, ", {crash}");
        }
        if let Some(code) = &self.code {
            let _ = write!(text, " ({code})");
        }
        if self.crashes > 1 {
            let _ = write!(text, ", {} crashes in a row", self.crashes);
        }
        text
    }
}

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

/// An ingress port and what it has carried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IngressStatus {
    /// The port.
    #[serde(flatten)]
    pub port: Port,
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
    /// How often the workload was started again.
    pub restarts: u64,
    /// The enclave's clock, once its init has told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<ClockStatus>,
    /// Times that the agent was not run for seconds, as after SIGSTOP.
    #[serde(default)]
    pub agent_pauses: u64,
    /// What the workload's limits have refused it.
    #[serde(default)]
    pub limits: LimitsStatus,
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
    /// How often the workload was started again.
    pub restarts: u64,
    /// The enclave's clock.
    pub clock: Option<ClockStatus>,
    /// Times that the agent was not run.
    pub pauses: u64,
    /// What the workload's limits have refused it.
    pub limits: LimitsStatus,
    /// How often the init had no place for a connection.
    pub places: InitPlaces,
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

    /// What the next agent must be told.
    pub fn history(&self) -> History {
        History {
            boot: self.boot.clone(),
            init_version: self.init_version.clone(),
            self_check: self.self_check.clone(),
            ready: self.was_ready,
            restarts: self.restarts,
            boot_steps: self.steps.clone(),
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
                clock: None,
                pauses: 0,
                limits: LimitsStatus::default(),
                places: InitPlaces::default(),
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
            clock: live.clock.clone(),
            agent_pauses: live.pauses,
            limits: live.limits,
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
            lines_left_out: throttle::left_out(),
            boot_steps: live.steps.clone(),
            logs: self.logs.read(),
            gate: self.gate.as_ref().map(|gate| gate.read()),
        }
    }
}

/// A length of time in milliseconds.
pub fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Status {
    /// The status as a table for people.
    pub fn table(&self) -> String {
        let mut table = String::new();
        let mut row = |key: &str, value: String| {
            // Writing to a string cannot fail.
            let _ = writeln!(table, "{key:<12}{}", printable(&value));
        };
        row("name", self.name.clone());
        row("state", self.state.to_string());
        row("uptime", uptime(self.uptime_ms));
        let cid = self
            .cid
            .map_or_else(String::new, |cid| format!(", CID {cid}"));
        row("hypervisor", format!("{}{cid}", self.hypervisor));
        row("image", self.image.clone());
        if self.debug {
            row("debug", "the enclave's PCRs read as zero".to_owned());
        }
        if let Some(self_check) = &self.self_check {
            row("self-check", self_check.to_string());
        }
        let detail = match self.health.detail.as_str() {
            "" => String::new(),
            detail => format!(": {detail}"),
        };
        row("health", format!("{}{detail}", self.health.state));
        row("restarts", self.restarts.to_string());
        if let Some(clock) = &self.clock {
            row("clock", clock.line());
        }
        if self.agent_pauses > 0 {
            row("paused", format!("the agent, {} times", self.agent_pauses));
        }
        if let Some(refused) = self.limits.describe() {
            row("limits", refused);
        }
        if let Some(end) = &self.last_end {
            row("last end", end.describe());
        }
        for (index, value) in &self.pcrs.0 {
            row(&format!("PCR{index}"), value.to_string());
        }
        for IngressStatus { port, counts } in &self.ingress {
            let Port { listen, to, .. } = port;
            row("ingress", format!("{listen} -> {to}  {}", traffic(counts)));
        }
        for EgressStatus {
            destination,
            counts,
        } in &self.egress
        {
            row("egress", format!("{destination}  {}", traffic(counts)));
        }
        for (direction, counts) in [
            ("egress", self.init_places.egress),
            ("ingress", self.init_places.ingress),
        ] {
            let PlaceCounts { refused, evicted } = counts;
            if refused + evicted > 0 {
                row(
                    "places",
                    format!(
                        "{direction}: the init refused {refused} connections and closed {evicted} idle ones"
                    ),
                );
            }
        }
        for (line, count) in &self.lines_left_out {
            row("left out", format!("{count} lines about {line}"));
        }
        for step in &self.boot_steps {
            row(
                "boot",
                format!(
                    "{:>9.3} ms  {} ({:.3} ms)",
                    thousandths(step.at_us),
                    step.name,
                    thousandths(step.took_us)
                ),
            );
        }
        if let Some(gate) = &self.gate {
            row("gate", gate.line());
        }
        row("logs", logs(&self.logs));
        for (stream, reasons) in &self.logs.lost {
            for (reason, count) in reasons {
                row("lost", format!("{count} records of {stream} ({reason})"));
            }
        }
        for sink in &self.logs.sinks {
            row("sink", describe_sink(sink));
        }
        let init = self.init_version.as_deref().unwrap_or("not known yet");
        row(
            "versions",
            format!("agent {}, init {init}", self.agent_version),
        );
        row("process", self.process_id.to_string());
        table
    }
}

#[expect(clippy::cast_precision_loss, reason = "for people, three decimals")]
fn thousandths(number: u64) -> f64 {
    number as f64 / 1000.0
}

fn traffic(counts: &Counts) -> String {
    let mut text = format!(
        "{} connections ({} open), {} out, {} in",
        counts.connections,
        counts.open,
        bytes(counts.bytes_out),
        bytes(counts.bytes_in)
    );
    if counts.refused > 0 {
        let _ = write!(text, ", {} refused", counts.refused);
    }
    if counts.limited > 0 {
        let _ = write!(text, " ({} by a limit)", counts.limited);
    }
    if counts.evicted > 0 {
        let _ = write!(text, ", {} closed when idle", counts.evicted);
    }
    text
}

fn logs(logs: &LogsStatus) -> String {
    let spool = &logs.spool;
    let mut text = format!("{} records", logs.records);
    let lost = logs.lost_in_enclave();
    if lost > 0 {
        let _ = write!(text, ", {lost} lost in the enclave");
    }
    let _ = write!(
        text,
        ", {} in {}",
        bytes(spool.bytes),
        spool.directory.display()
    );
    if spool.full {
        text += ", full";
    }
    if let Some(error) = &spool.error {
        let _ = write!(text, ", not writable: {error}");
    }
    text
}

fn describe_sink(status: &SinkStatus) -> String {
    let mut text = status.sink.clone();
    if let Some(stream) = &status.stream {
        let _ = write!(text, " {stream}");
    }
    let _ = write!(text, "  {} records", status.records);
    if status.lag_records > 0 {
        let _ = write!(
            text,
            ", {} behind ({}, {:.1} s)",
            status.lag_records,
            bytes(status.lag_bytes),
            status.lag_seconds
        );
    }
    for (reason, count) in &status.lost {
        let _ = write!(text, ", {count} lost ({reason})");
    }
    if let Some(error) = &status.last_error {
        let _ = write!(text, ", failing: {error}");
    }
    text
}

fn bytes(count: u64) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    for (size, unit) in units {
        if count >= size {
            return format!("{}.{} {unit}", count / size, count % size * 10 / size);
        }
    }
    format!("{count} B")
}

fn uptime(milliseconds: u64) -> String {
    let seconds = milliseconds / 1000;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::SpoolStatus;

    /// An enclave of which there is something to say in every line.
    fn eventful() -> Status {
        Status {
            name: "payments".to_owned(),
            state: Phase::Ready,
            uptime_ms: 3_723_000,
            image: "/images/payments.eif".to_owned(),
            hypervisor: "qemu".to_owned(),
            debug: false,
            cid: Some(4),
            process_id: 7,
            agent_version: "0.1.0".to_owned(),
            init_version: Some("0.1.0".to_owned()),
            boot: None,
            self_check: Some(SelfCheck::new(
                link::control::CheckOutcome::Failed,
                "chain.root",
                "another\nroot",
                &[1],
            )),
            health: Health {
                state: "unhealthy".to_owned(),
                detail: "HTTP\x1b 500".to_owned(),
            },
            restarts: 2,
            clock: Some(ClockStatus {
                state: "holdover".to_owned(),
                source: "ptp".to_owned(),
                error_us: Some(17_000),
                pauses: 1,
                detail: String::new(),
            }),
            agent_pauses: 3,
            limits: LimitsStatus {
                oom_kills: 3,
                pids_refused: 0,
            },
            last_end: Some(EarlierEnd {
                time_us: 1_767_225_600_000_000,
                cause: Cause::BootFailed,
                crash: Some(Crash::BootFailure),
                code: Code::clean("boot.root"),
                crashes: 2,
            }),
            pcrs: Pcrs(BTreeMap::from([(0, Pcr::ZERO)])),
            ingress: vec![IngressStatus {
                port: Port {
                    listen: "127.0.0.1:8080".to_owned(),
                    port: 8080,
                    to: 80,
                },
                counts: Counts {
                    connections: 3,
                    bytes_in: 1_600_000,
                    ..Counts::default()
                },
            }],
            egress: vec![],
            init_places: InitPlaces {
                egress: PlaceCounts {
                    refused: 3,
                    evicted: 4,
                },
                ..InitPlaces::default()
            },
            lines_left_out: BTreeMap::from([("health".to_owned(), 19_950)]),
            boot_steps: vec![BootStep {
                name: "clock".to_owned(),
                at_us: 12_345,
                took_us: 45,
            }],
            logs: LogsStatus {
                records: 10,
                missing: 1,
                lost: BTreeMap::from([(
                    "application".to_owned(),
                    BTreeMap::from([("queue-full".to_owned(), 4)]),
                )]),
                complete: false,
                spool: SpoolStatus {
                    directory: "/spool".into(),
                    bytes: 2048,
                    ..SpoolStatus::default()
                },
                sinks: vec![SinkStatus {
                    sink: "cloudwatch".to_owned(),
                    stream: Some("application".to_owned()),
                    records: 7,
                    lag_records: 3,
                    lag_bytes: 100,
                    lag_seconds: 2.5,
                    lost: BTreeMap::from([("too old".to_owned(), 1)]),
                    ..SinkStatus::default()
                }],
            },
            gate: Some(GateStatus {
                function: "gate".to_owned(),
                ..GateStatus::default()
            }),
        }
    }

    #[test]
    fn the_table_shows_what_an_operator_looks_for() {
        let status = eventful();
        let table = status.table();
        for part in [
            "state       ready",
            "uptime      1 h 2 min",
            "hypervisor  qemu, CID 4",
            "self-check  failed: chain.root: another\\nroot",
            "unhealthy: HTTP\\u{1b} 500",
            "127.0.0.1:8080 -> 80  3 connections (0 open), 0 B out, 1.5 MiB in",
            "places      egress: the init refused 3 connections and closed 4 idle ones",
            "left out    19950 lines about health",
            "12.345 ms  clock (0.045 ms)",
            "gate        waiting for a challenge by gate",
            "limits      3 processes killed for want of memory\n",
            "last end    boot failed at 2026-01-01T00:00:00.000000Z, boot failure (boot.root), 2 crashes in a row\n",
            "10 records, 4 lost in the enclave, 2.0 KiB in /spool",
            "lost        4 records of application (queue-full)\n",
            "cloudwatch application  7 records, 3 behind (100 B, 2.5 s), 1 lost (too old)",
        ] {
            assert!(table.contains(part), "{part} in\n{table}");
        }
        let json = serde_json::to_value(&status).unwrap();
        assert_eq!(json["ingress"][0]["listen"], "127.0.0.1:8080");
        assert_eq!(json["ingress"][0]["bytes_in"], 1_600_000);
        assert_eq!(json["pcrs"]["0"].as_str().unwrap().len(), 96);
        assert_eq!(serde_json::from_value::<Status>(json).unwrap(), status);
    }
}
