//! The status for people.

use std::fmt::Write;

use log_sinks::telemetry::{LogsStatus, SinkStatus};

use super::{EarlierEnd, EgressStatus, IngressStatus, Status};
use crate::ingress::OpenPort;
use crate::traffic::{Counts, PlaceCounts};
use log_spool::timestamp;
use plain_text::plain;

impl Status {
    /// The status as a table for people.
    pub fn table(&self) -> String {
        let mut table = String::new();
        let mut row = |key: &str, value: String| {
            // Writing to a string cannot fail.
            let _ = writeln!(table, "{key:<12}{}", plain(&value));
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
        for (key, line) in self.of_workloads() {
            row(key, line);
        }
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
            let OpenPort { listen, to, .. } = port;
            row("ingress", format!("{listen} -> {to}  {}", traffic(counts)));
        }
        for EgressStatus {
            destination,
            counts,
        } in &self.egress
        {
            row("egress", format!("{destination}  {}", traffic(counts)));
        }
        for line in self.of_init_places() {
            row("places", line);
        }
        for (key, line) in self.of_secrets() {
            row(key, line);
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

    /// What the init had no place for.
    fn of_init_places(&self) -> Vec<String> {
        let places = &self.init_places;
        let mut lines = Vec::new();
        for (direction, counts) in [("egress", places.egress), ("ingress", places.ingress)] {
            let PlaceCounts { refused, evicted } = counts;
            if refused > 0 || evicted > 0 {
                lines.push(format!(
                    "{direction}: the init refused {refused} connections and closed {evicted} idle ones"
                ));
            }
        }
        let dropped = places.dropped_datagrams;
        if dropped > 0 {
            lines.push(format!("the init dropped {dropped} datagrams"));
        }
        lines
    }

    /// The health and restarts of the enclave, and how each of several workloads is.
    fn of_workloads(&self) -> Vec<(&'static str, String)> {
        let detail = match self.health.detail.as_str() {
            "" => String::new(),
            detail => format!(": {detail}"),
        };
        let mut rows = vec![
            ("health", format!("{}{detail}", self.health.state)),
            ("restarts", self.restarts.to_string()),
        ];
        let workloads = self.workloads.iter();
        rows.extend(workloads.map(|workload| ("workload", workload.to_string())));
        rows
    }

    /// The secrets, the calls to KMS, and what these are signed with.
    fn of_secrets(&self) -> Vec<(&'static str, String)> {
        let secrets = self.secrets.map(|secrets| ("secrets", secrets.describe()));
        let mut rows = Vec::from_iter(secrets);
        if let Some(kms) = &self.kms {
            rows.extend(kms.lines().map(|line| ("kms", line)));
            if kms.open > 0 {
                let open = format!("{} calls are open, {} wait", kms.open, kms.waiting);
                rows.push(("kms", open));
            }
        }
        if let Some(credentials) = &self.credentials {
            rows.push(("credentials", credentials.line()));
        }
        rows
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
    if counts.dropped_datagrams > 0 {
        let _ = write!(text, ", {} datagrams dropped", counts.dropped_datagrams);
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

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use measurements::Pcr;

    use super::*;
    use crate::clock::ClockStatus;
    use crate::crash::Crash;
    use crate::credentials::CredentialsStatus;
    use crate::enclave::{BootStep, Cause, Code, Health, LimitsStatus, Phase, SecretsStatus};
    use crate::kms::KmsStatus;
    use crate::self_check::SelfCheck;
    use crate::status::GateStatus;
    use crate::traffic::InitPlaces;
    use enclave_host::image::Pcrs;
    use log_spool::SpoolStatus;

    const HANDED_IN: CredentialsStatus = CredentialsStatus {
        renewals: 3,
        failures: 1,
        age_s: Some(61),
        left_s: Some(3_600),
    };

    fn called() -> KmsStatus {
        let denied = BTreeMap::from([("access-denied".to_owned(), 2)]);
        KmsStatus {
            calls: BTreeMap::from([("Decrypt".to_owned(), denied)]),
            open: 33,
            waiting: 1,
        }
    }

    /// Logs with losses, and a sink that lags.
    fn lossy() -> LogsStatus {
        LogsStatus {
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
        }
    }

    /// An enclave of which there is something to say in every line.
    pub(crate) fn eventful() -> Status {
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
            workloads: serde_json::from_value(serde_json::json!([{
                "name": "web",
                "state": "unhealthy",
                "detail": "HTTP\u{1b} 500",
                "restarts": 2,
            }]))
            .unwrap(),
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
            secrets: Some(SecretsStatus {
                declared: 3,
                delivered: 2,
                failed_refreshes: 4,
            }),
            last_end: Some(EarlierEnd {
                time_us: 1_767_225_600_000_000,
                cause: Cause::BootFailed,
                crash: Some(Crash::BootFailure),
                code: Code::clean("boot.root"),
                crashes: 2,
            }),
            pcrs: Pcrs(BTreeMap::from([(0, Pcr::ZERO)])),
            ingress: vec![IngressStatus {
                port: OpenPort {
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
                dropped_datagrams: 5,
                ..InitPlaces::default()
            },
            kms: Some(called()),
            credentials: Some(HANDED_IN),
            lines_left_out: BTreeMap::from([("health".to_owned(), 19_950)]),
            boot_steps: vec![BootStep {
                name: "clock".to_owned(),
                at_us: 12_345,
                took_us: 45,
            }],
            logs: lossy(),
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
            "places      the init dropped 5 datagrams",
            "left out    19950 lines about health",
            "12.345 ms  clock (0.045 ms)",
            "gate        waiting for a challenge by gate",
            "kms         Decrypt: 2 access-denied\n",
            "kms         33 calls are open, 1 wait\n",
            "credentials handed in 61 s ago, valid for 3600 s; 3 renewals, 1 failures\n",
            "limits      3 processes killed for want of memory\n",
            "secrets     2 of 3 delivered, 4 refreshes failed\n",
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
