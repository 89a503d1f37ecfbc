//! What is known of an enclave, for CloudWatch: a record of the stream `system`
//! each minute, in the embedded metric format, from which CloudWatch Logs makes
//! metrics. It takes the way of all records, through spool and sink: so metrics
//! survive an outage of the service, and need no permission of their own.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use link::logs::LogStream;
use serde_json::{Map, Value, json};
use tokio::time::{MissedTickBehavior, interval};

use crate::enclave::Phase;
use crate::gate::Verdict;
use crate::spool::{Spool, now_us};
use crate::status::{Board, Status};
use crate::traffic::Counts;

const INTERVAL: Duration = Duration::from_secs(60);
const DIMENSION: &str = "EnclaveId";
/// Longest namespace, in characters.
const MAX_NAMESPACE: usize = 255;

/// A namespace of metrics: 1 to 255 letters, digits and `. - _ / # :` and blanks,
/// not one of AWS's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricsNamespace(String);

impl FromStr for MetricsNamespace {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_/#: ".contains(&byte);
        let is_good = (1..=MAX_NAMESPACE).contains(&text.len())
            && text.bytes().all(is_allowed)
            && text.trim() == text
            && !text.starts_with([':', '/'])
            && !text.starts_with("AWS/");
        if is_good {
            return Ok(Self(text.to_owned()));
        }
        Err("a namespace of metrics has 1 to 255 letters, digits, blanks and . - _ / # : and does not begin with AWS/".to_owned())
    }
}

impl fmt::Display for MetricsNamespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whose metrics they are.
#[derive(Debug, Clone)]
pub struct EmbeddedMetrics {
    /// Where they are found.
    pub namespace: MetricsNamespace,
    /// Their only dimension: the enclave's identifier in the control plane.
    pub enclave_id: String,
}

impl EmbeddedMetrics {
    /// Records them at once and then each minute, until dropped.
    pub async fn report(self, board: Arc<Board>, spool: Arc<Spool>) {
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut before = Totals::default();
        loop {
            ticks.tick().await;
            let status = board.read();
            let totals = Totals::of(&status);
            let record = self.record(&status, &totals.since(&before), now_us() / 1000);
            spool.note(LogStream::System, record.to_string()).await;
            before = totals;
        }
    }

    fn record(&self, status: &Status, counts: &Totals, now_ms: u64) -> Value {
        let lag = status.logs.sinks.iter().map(|sink| sink.lag_seconds);
        let mut metrics: Vec<(&str, &str, Value)> = vec![
            ("Ready", "None", is(status.state == Phase::Ready)),
            ("LogLag", "Seconds", lag.fold(0.0, f64::max).into()),
            ("SpoolBytes", "Bytes", status.logs.spool.bytes.into()),
            ("Restarts", "Count", counts.restarts.into()),
            ("LogRecordsLost", "Count", counts.lost.into()),
            ("EgressBytes", "Bytes", counts.egress.bytes.into()),
            ("EgressConnections", "Count", counts.egress.joined.into()),
            ("EgressRefused", "Count", counts.egress.refused.into()),
            ("IngressBytes", "Bytes", counts.ingress.bytes.into()),
            ("IngressConnections", "Count", counts.ingress.joined.into()),
            ("IngressRefused", "Count", counts.ingress.refused.into()),
        ];
        if let Some(clock) = &status.clock {
            let is_synchronised = is(clock.is_synchronised());
            metrics.push(("ClockSynchronised", "None", is_synchronised));
            metrics.push(("ClockPauses", "Count", counts.clock_pauses.into()));
            if let Some(error_us) = clock.error_us {
                metrics.push(("ClockErrorBound", "Microseconds", error_us.into()));
            }
        }
        if let Some(gate) = &status.gate {
            let is_accepted = is(gate.verdict == Verdict::Accepted);
            metrics.push(("GateAccepted", "None", is_accepted));
        }
        let definitions: Vec<Value> = metrics
            .iter()
            .map(|(name, unit, _)| json!({ "Name": name, "Unit": unit }))
            .collect();
        let mut record = Map::new();
        record.insert(
            "_aws".to_owned(),
            json!({
                "Timestamp": now_ms,
                "CloudWatchMetrics": [{
                    "Namespace": self.namespace.to_string(),
                    "Dimensions": [[DIMENSION]],
                    "Metrics": definitions,
                }],
            }),
        );
        record.insert(DIMENSION.to_owned(), self.enclave_id.clone().into());
        for (name, _, value) in metrics {
            record.insert(name.to_owned(), value);
        }
        Value::Object(record)
    }
}

fn is(so: bool) -> Value {
    u8::from(so).into()
}

/// What only grows. A record tells by how much since the last one: CloudWatch adds
/// up.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Totals {
    restarts: u64,
    lost: u64,
    clock_pauses: u64,
    egress: Carried,
    ingress: Carried,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Carried {
    bytes: u64,
    joined: u64,
    refused: u64,
}

impl Totals {
    fn of(status: &Status) -> Self {
        let lost = status.logs.sinks.iter().flat_map(|sink| sink.lost.values());
        Self {
            restarts: status.restarts,
            lost: status.logs.missing + lost.sum::<u64>(),
            clock_pauses: status.clock.as_ref().map_or(0, |clock| clock.pauses),
            egress: status
                .egress
                .iter()
                .map(|egress| egress.counts)
                .sum::<Counts>()
                .into(),
            ingress: status
                .ingress
                .iter()
                .map(|ingress| ingress.counts)
                .sum::<Counts>()
                .into(),
        }
    }

    fn since(&self, before: &Self) -> Self {
        Self {
            restarts: self.restarts.saturating_sub(before.restarts),
            lost: self.lost.saturating_sub(before.lost),
            clock_pauses: self.clock_pauses.saturating_sub(before.clock_pauses),
            egress: self.egress.since(before.egress),
            ingress: self.ingress.since(before.ingress),
        }
    }
}

impl From<Counts> for Carried {
    fn from(counts: Counts) -> Self {
        Self {
            bytes: counts.bytes_in + counts.bytes_out,
            joined: counts.connections,
            refused: counts.refused,
        }
    }
}

impl Carried {
    fn since(self, before: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_sub(before.bytes),
            joined: self.joined.saturating_sub(before.joined),
            refused: self.refused.saturating_sub(before.refused),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_are_cloudwatchs() {
        for good in ["Enclaves", "Acme/Enclaves v1.2#a", "a:b"] {
            good.parse::<MetricsNamespace>().unwrap();
        }
        let long = "x".repeat(256);
        for bad in ["", " a", "AWS/EC2", ":a", "/a", "ä", "a\n", &long] {
            assert!(bad.parse::<MetricsNamespace>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_grows_is_told_by_how_much_also_when_it_begins_anew() {
        let carried = |bytes| Carried {
            bytes,
            joined: 2 * bytes,
            refused: 3 * bytes,
        };
        let totals = |number| Totals {
            restarts: number,
            lost: number,
            clock_pauses: number,
            egress: carried(number),
            ingress: carried(number),
        };
        assert_eq!(totals(7).since(&totals(5)), totals(2));
        assert_eq!(totals(1).since(&totals(5)), Totals::default());
    }
}
