//! What is known of an enclave, for CloudWatch: records in the embedded metric
//! format, from which CloudWatch Logs makes metrics. They need no permission of
//! their own.

use std::fmt;
use std::str::FromStr;

use serde_json::{Map, Value, json};

use super::totals::Totals;
use crate::enclave::Phase;
use crate::status::{Status, Verdict};

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
pub(crate) struct EmbeddedMetrics {
    /// Where they are found.
    pub(crate) namespace: MetricsNamespace,
    /// Their only dimension: the enclave's identifier in the control plane.
    pub(crate) enclave_id: String,
}

impl EmbeddedMetrics {
    /// The record: what is, and how much was counted since the last one.
    pub(crate) fn record(&self, status: &Status, counts: &Totals, now_ms: u64) -> Value {
        let lag = status.logs.sinks.iter().map(|sink| sink.lag_seconds);
        let is_ready = status.state == Phase::Ready;
        let is_healthy = is_ready && status.health.is_healthy();
        let mut metrics: Vec<(&str, &str, Value)> = vec![
            ("Ready", "None", is(is_ready)),
            ("Healthy", "None", is(is_healthy)),
            ("LogLag", "Seconds", lag.fold(0.0, f64::max).into()),
            ("SpoolBytes", "Bytes", status.logs.spool.bytes.into()),
            ("Restarts", "Count", counts.life.restarts.into()),
            ("LogRecordsLost", "Count", counts.lost().into()),
            ("OutOfMemoryKills", "Count", counts.life.oom_kills.into()),
            ("Crashes", "Count", counts.crashes.into()),
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
            metrics.push(("ClockPauses", "Count", counts.life.clock_pauses.into()));
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
}
