//! What is known of an enclave, for Prometheus: text exposition format 0.0.4.

mod page;
mod secrets;
mod server;

use std::collections::BTreeMap;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Response;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use link::control::{ClockState, LossReason, WorkloadState};
use link::logs::LogStream;
use log_sinks::telemetry::{LogsStatus, SinkStatus, ratio};
use serde::Serialize;

use crate::enclave::{Code, Phase};
use crate::self_check::Outcome;
use crate::status::{EarlierEnd, GateStatus, Status};
use crate::traffic::Counts;

pub use server::MetricsAddress;
pub(crate) use server::listen;

use page::Page;

/// What the text is.
pub(crate) const FORMAT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4");

/// The answer to `GET /metrics`.
pub(crate) fn response(status: &Status) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text(status)));
    response.headers_mut().insert(CONTENT_TYPE, FORMAT);
    response
}

/// The status as metrics.
pub fn text(status: &Status) -> String {
    let mut page = Page::default();
    page.family("enclave_info", "gauge", "What runs.");
    let labels = [
        ("name", status.name.as_str()),
        ("hypervisor", &status.hypervisor),
        ("agent_version", &status.agent_version),
    ];
    page.sample(&labels, 1.0);
    let is_ready = status.state == Phase::Ready;
    page.family(
        "enclave_ready",
        "gauge",
        "1 once the workload has been ready, until the enclave ends.",
    );
    page.sample(&[], f64::from(u8::from(is_ready)));
    page.family(
        "enclave_healthy",
        "gauge",
        "1 while the workload is ready, runs and is not unhealthy.",
    );
    let is_healthy = is_ready && status.health.is_healthy();
    page.sample(&[], f64::from(u8::from(is_healthy)));
    page.family("enclave_uptime_seconds", "gauge", "Since the start.");
    page.sample(&[], ratio(status.uptime_ms, 1000));
    page.family(
        "enclave_workload_restarts_total",
        "counter",
        "Restarts of the workload.",
    );
    if status.workloads.is_empty() {
        page.count(&[], status.restarts);
    }
    for workload in status.workloads.iter() {
        page.count(&[("workload", &workload.name)], workload.restarts);
    }
    workloads(&mut page, status);
    clock(&mut page, status);
    if let Some(self_check) = &status.self_check {
        page.family(
            "enclave_self_check",
            "gauge",
            "1 for what the enclave's verification of its own document came to.",
        );
        for outcome in Outcome::ALL {
            let is_so = outcome == self_check.outcome;
            page.count(&[("outcome", outcome.name())], is_so.into());
        }
    }
    page.family(
        "enclave_oom_kills_total",
        "counter",
        "Processes of the workload that were killed because memory had run out.",
    );
    page.count(&[], status.limits.oom_kills);
    page.family(
        "enclave_pids_refused_total",
        "counter",
        "Processes and threads that the workload was refused.",
    );
    page.count(&[], status.limits.pids_refused);
    if let Some(secrets) = status.secrets {
        secrets::delivery(&mut page, secrets);
    }
    if let Some(end) = &status.last_end {
        last_end(&mut page, end);
    }
    traffic(&mut page, status);
    pressure(&mut page, status);
    if let Some(status) = &status.kms {
        secrets::kms(&mut page, status);
    }
    if let Some(status) = &status.credentials {
        secrets::credentials(&mut page, status);
    }
    if let Some(status) = &status.gate {
        gate(&mut page, status);
    }
    logs(&mut page, &status.logs);
    page.text
}

/// How each of several workloads is.
fn workloads(page: &mut Page, status: &Status) {
    if status.workloads.is_empty() {
        return;
    }
    page.family(
        "enclave_workload_state",
        "gauge",
        "1 for the state that one of several workloads is in.",
    );
    for workload in status.workloads.iter() {
        for state in WorkloadState::ALL.map(WorkloadState::name) {
            let labels = [("workload", workload.name.as_str()), ("state", state)];
            page.count(&labels, (workload.state == state).into());
        }
    }
}

fn clock(page: &mut Page, status: &Status) {
    page.family(
        "enclave_agent_pauses_total",
        "counter",
        "Times that the agent was not run for seconds.",
    );
    page.count(&[], status.agent_pauses);
    let Some(clock) = &status.clock else {
        return;
    };
    page.family(
        "enclave_clock_state",
        "gauge",
        "1 for the state that the enclave's clock is in.",
    );
    for name in ClockState::ALL.map(ClockState::name) {
        page.count(&[("state", name)], (clock.state == name).into());
    }
    page.family(
        "enclave_clock_pauses_total",
        "counter",
        "Times that the enclave's machine was found to have been stopped.",
    );
    page.count(&[], clock.pauses);
    if let Some(error_us) = clock.error_us {
        page.family(
            "enclave_clock_error_bound_seconds",
            "gauge",
            "How wrong the enclave's clock can be at most.",
        );
        page.sample(&[], ratio(error_us, 1_000_000));
    }
}

/// How the enclave before this one ended: an agent ends with its enclave, so this is
/// where an end can be read.
fn last_end(page: &mut Page, end: &EarlierEnd) {
    let cause = kebab(&end.cause);
    let crash = end.crash.as_ref().map_or_else(String::new, kebab);
    let labels = [
        ("cause", cause.as_str()),
        ("crash", &crash),
        ("code", end.code.as_ref().map_or("", Code::label)),
    ];
    page.family(
        "enclave_last_end_info",
        "gauge",
        "How the enclave of this name ended the last time.",
    );
    page.sample(&labels, 1.0);
    page.family(
        "enclave_crashes",
        "gauge",
        "Crashes in a row before this start.",
    );
    page.count(&[], end.crashes.into());
}

/// The name of a variant, as in JSON.
fn kebab(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(name)) => name,
        _ => String::new(),
    }
}

const TRAFFIC: [Family<Counts, u64>; 8] = [
    (
        "enclave_connections_total",
        "counter",
        "Connections carried.",
        |counts| counts.connections,
    ),
    (
        "enclave_connections_open",
        "gauge",
        "Connections that are open.",
        |counts| counts.open,
    ),
    (
        "enclave_connections_refused_total",
        "counter",
        "Connections asked for and not carried.",
        |counts| counts.refused,
    ),
    (
        "enclave_connections_limited_total",
        "counter",
        "Those of them that a limit kept out.",
        |counts| counts.limited,
    ),
    (
        "enclave_connections_evicted_total",
        "counter",
        "Idle connections closed for new ones.",
        |counts| counts.evicted,
    ),
    (
        "enclave_datagrams_dropped_total",
        "counter",
        "Datagrams that the agent could not carry, either way.",
        |counts| counts.dropped_datagrams,
    ),
    (
        "enclave_bytes_out_total",
        "counter",
        "Bytes out of the enclave.",
        |counts| counts.bytes_out,
    ),
    (
        "enclave_bytes_in_total",
        "counter",
        "Bytes into the enclave.",
        |counts| counts.bytes_in,
    ),
];

/// Both directions, each as a whole: `status` has ports and destinations.
fn traffic(page: &mut Page, status: &Status) {
    let egress = status.egress.iter().map(|egress| egress.counts).sum();
    let ingress = status.ingress.iter().map(|ingress| ingress.counts).sum();
    let directions: [(&str, Counts); 2] = [("egress", egress), ("ingress", ingress)];
    for (name, kind, help, value) in TRAFFIC {
        page.family(name, kind, help);
        for (direction, counts) in &directions {
            page.count(&[("direction", *direction)], value(counts));
        }
    }
}

/// What found no place inside, and what was not written here.
fn pressure(page: &mut Page, status: &Status) {
    let places = status.init_places;
    let directions = [("egress", places.egress), ("ingress", places.ingress)];
    page.family(
        "enclave_init_connections_refused_total",
        "counter",
        "Connections that the init refused as busy.",
    );
    for (direction, counts) in directions {
        page.count(&[("direction", direction)], counts.refused);
    }
    page.family(
        "enclave_init_connections_evicted_total",
        "counter",
        "Idle connections that the init closed for new ones.",
    );
    for (direction, counts) in directions {
        page.count(&[("direction", direction)], counts.evicted);
    }
    page.family(
        "enclave_init_datagrams_dropped_total",
        "counter",
        "Datagrams of the workload that the init dropped, either way.",
    );
    page.count(&[], places.dropped_datagrams);
    page.family(
        "enclave_lines_left_out_total",
        "counter",
        "Lines that the agent did not write because there were too many.",
    );
    for (line, count) in &status.lines_left_out {
        page.count(&[("line", line.as_str())], *count);
    }
}

/// What a metric is called, what it means, and how it is read.
type Family<T, V> = (&'static str, &'static str, &'static str, fn(&T) -> V);

const SPOOL: [Family<LogsStatus, u64>; 8] = [
    (
        "enclave_logs_records_total",
        "counter",
        "Records taken from the enclave.",
        |logs| logs.records,
    ),
    (
        "enclave_logs_missing_total",
        "counter",
        "Record numbers that the enclave left out.",
        |logs| logs.missing,
    ),
    (
        "enclave_logs_spool_bytes",
        "gauge",
        "Bytes of the spool on disk.",
        |logs| logs.spool.bytes,
    ),
    (
        "enclave_logs_spool_max_bytes",
        "gauge",
        "Most bytes of the spool.",
        |logs| logs.spool.max_bytes,
    ),
    (
        "enclave_logs_spool_full",
        "gauge",
        "1 while the spool takes nothing because it is at its cap.",
        |logs| logs.spool.full.into(),
    ),
    (
        "enclave_logs_spool_full_total",
        "counter",
        "Times that the spool was at its cap.",
        |logs| logs.spool.times_full,
    ),
    (
        "enclave_logs_spool_errors_total",
        "counter",
        "Writes that the file system refused.",
        |logs| logs.spool.errors,
    ),
    (
        "enclave_logs_own_dropped_total",
        "counter",
        "Records of the agent's own that found no room.",
        |logs| logs.spool.own_dropped,
    ),
];

const SINK: [Family<SinkStatus, f64>; 8] = [
    (
        "enclave_logs_sink_lag_seconds",
        "gauge",
        "Age in the spool of the oldest record that waits.",
        |sink| sink.lag_seconds,
    ),
    (
        "enclave_logs_sink_lag_records",
        "gauge",
        "Records behind what was passed on.",
        |sink| ratio(sink.lag_records, 1),
    ),
    (
        "enclave_logs_sink_lag_bytes",
        "gauge",
        "Bytes of the spool behind what was passed on.",
        |sink| ratio(sink.lag_bytes, 1),
    ),
    (
        "enclave_logs_sink_records_total",
        "counter",
        "Records that the destination has taken.",
        |sink| ratio(sink.records, 1),
    ),
    (
        "enclave_logs_sink_bytes_total",
        "counter",
        "Their bytes, as the destination counts them.",
        |sink| ratio(sink.bytes, 1),
    ),
    (
        "enclave_logs_sink_batches_total",
        "counter",
        "Batches that the destination has taken.",
        |sink| ratio(sink.batches, 1),
    ),
    (
        "enclave_logs_sink_batch_fill_ratio",
        "gauge",
        "How full batches are on average, from 0 to 1.",
        |sink| sink.mean_fill,
    ),
    (
        "enclave_logs_sink_retries_total",
        "counter",
        "Sends that were tried again.",
        |sink| ratio(sink.retries, 1),
    ),
];

fn logs(page: &mut Page, logs: &LogsStatus) {
    for (name, kind, help, value) in SPOOL {
        page.family(name, kind, help);
        page.count(&[], value(logs));
    }
    page.family(
        "enclave_logs_lost_total",
        "counter",
        "Records that were lost in the enclave, by stream and reason.",
    );
    for stream in LogStream::ALL.map(LogStream::name) {
        for reason in LossReason::ALL.map(LossReason::name) {
            let of_stream = logs.lost.get(stream);
            let count = of_stream.and_then(|reasons| reasons.get(reason)).copied();
            page.count(
                &[("stream", stream), ("reason", reason)],
                count.unwrap_or(0),
            );
        }
    }
    for (name, kind, help, value) in SINK {
        page.family(name, kind, help);
        for sink in &logs.sinks {
            page.sample(&labels(sink), value(sink));
        }
    }
    page.family(
        "enclave_logs_sink_errors_total",
        "counter",
        "Failures by class.",
    );
    for sink in &logs.sinks {
        counts(page, sink, "class", &sink.errors);
    }
    page.family(
        "enclave_logs_sink_lost_total",
        "counter",
        "Records that did not reach the destination, by reason.",
    );
    for sink in &logs.sinks {
        counts(page, sink, "reason", &sink.lost);
    }
}

fn labels(sink: &SinkStatus) -> [(&'static str, &str); 2] {
    let stream = sink.stream.as_deref().unwrap_or_default();
    [("sink", &sink.sink), ("stream", stream)]
}

fn gate(page: &mut Page, gate: &GateStatus) {
    page.family(
        "enclave_gate_documents_total",
        "counter",
        "Documents shown to the attestation gate, by its verdict.",
    );
    page.count(&[("verdict", "accepted")], gate.accepted);
    page.count(&[("verdict", "refused")], gate.refused);
    page.family(
        "enclave_gate_failures_total",
        "counter",
        "Rounds with the attestation gate that failed.",
    );
    page.count(&[], gate.failures);
    page.family(
        "enclave_gate_failing",
        "gauge",
        "1 if the last round with the attestation gate has failed.",
    );
    page.sample(&[], f64::from(u8::from(gate.last_error.is_some())));
}

fn counts(page: &mut Page, sink: &SinkStatus, label: &str, counts: &BTreeMap<String, u64>) {
    let [name, stream] = labels(sink);
    for (key, &count) in counts {
        page.count(&[name, stream, (label, key)], count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped_and_every_family_has_its_type() {
        let sink = SinkStatus {
            sink: "file:/a\"b\\c\nd".to_owned(),
            lag_seconds: 1.5,
            errors: BTreeMap::from([("throttled".to_owned(), 3)]),
            ..SinkStatus::default()
        };
        let status = LogsStatus {
            records: 7,
            lost: BTreeMap::from([(
                "application".to_owned(),
                BTreeMap::from([("queue-full".to_owned(), 9)]),
            )]),
            sinks: vec![sink],
            ..LogsStatus::default()
        };
        let mut page = Page::default();
        logs(&mut page, &status);
        let label = r#"sink="file:/a\"b\\c\nd",stream="""#;
        for line in [
            "enclave_logs_records_total 7".to_owned(),
            "enclave_logs_lost_total{stream=\"application\",reason=\"queue-full\"} 9".to_owned(),
            "enclave_logs_lost_total{stream=\"errors\",reason=\"ended\"} 0".to_owned(),
            format!("enclave_logs_sink_lag_seconds{{{label}}} 1.5"),
            format!("enclave_logs_sink_errors_total{{{label},class=\"throttled\"}} 3"),
        ] {
            assert!(
                page.text.lines().any(|other| other == line),
                "{line}\n{}",
                page.text
            );
        }
        let samples = page.text.lines().filter(|line| !line.starts_with('#'));
        for sample in samples {
            let name = sample.split(['{', ' ']).next().unwrap();
            assert!(page.text.contains(&format!("# TYPE {name} ")), "{name}");
        }
    }

    #[test]
    fn metrics_are_all_in_the_manual_and_no_others() {
        let page = text(&crate::status::eventful());
        let families: Vec<_> = page
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE "))
            .map(|family| family.replace(' ', "` | "))
            .collect();
        let path = "../docs/metrics.md";
        let manual = std::fs::read_to_string(path).unwrap();
        let rows: Vec<_> = manual
            .lines()
            .filter_map(|line| line.strip_prefix("| `"))
            .collect();
        for family in &families {
            let row = format!("{family} | ");
            assert!(rows.iter().any(|line| line.starts_with(&row)), "{family}");
        }
        assert_eq!(rows.len(), families.len());
    }
}
