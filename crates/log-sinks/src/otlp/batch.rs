//! One export request: `ExportLogsServiceRequest` in the JSON of the protocol
//! (<https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding>).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use link::logs::LogStream;
use log_spool::{Source, Stored};
use manifest::EnclaveName;
use serde_json::json;

/// Bytes after which a request takes no further record. Receivers take some MiB.
pub(super) const MAX_BYTES: usize = 1024 * 1024;

/// Records, encoded one by one.
pub(super) struct LogBatch {
    resource: String,
    body: Vec<u8>,
    records: u64,
}

impl LogBatch {
    pub(super) fn new(name: &EnclaveName) -> Self {
        let resource = json!({
            "attributes": [
                { "key": "service.name", "value": { "stringValue": name.as_str() } },
                { "key": "service.namespace", "value": { "stringValue": "enclave" } },
            ],
        });
        Self {
            resource: resource.to_string(),
            body: Vec::new(),
            records: 0,
        }
    }

    pub(super) fn push(&mut self, record: &Stored<'_>, stored_us: u64) -> bool {
        if self.body.len() >= MAX_BYTES {
            return false;
        }
        if self.records > 0 {
            self.body.push(b',');
        }
        self.body.extend(encode(record, stored_us).into_bytes());
        self.records += 1;
        true
    }

    pub(super) fn records(&self) -> u64 {
        self.records
    }

    pub(super) fn bytes(&self) -> usize {
        self.body.len()
    }

    /// The whole request.
    pub(super) fn finish(&mut self) -> Bytes {
        let scope = json!({ "name": "parent-agent", "version": env!("CARGO_PKG_VERSION") });
        let begin = format!(
            r#"{{"resourceLogs":[{{"resource":{},"scopeLogs":[{{"scope":{scope},"logRecords":["#,
            self.resource
        );
        let records = std::mem::take(&mut self.body);
        [begin.as_bytes(), &records, b"]}]}]}"].concat().into()
    }

    pub(super) fn clear(&mut self) {
        self.body.clear();
        self.records = 0;
    }
}

fn encode(record: &Stored<'_>, stored_us: u64) -> String {
    let body = match std::str::from_utf8(record.data) {
        Ok(text) => json!({ "stringValue": text }),
        Err(_) => json!({ "bytesValue": STANDARD.encode(record.data) }),
    };
    // From the data model: 9 is INFO, 17 is ERROR.
    let severity = match (record.stream, record.source) {
        (LogStream::Errors, _) => (17, "ERROR"),
        _ => (9, "INFO"),
    };
    let text = |key: &str, value: &str| json!({ "key": key, "value": { "stringValue": value } });
    let mut attributes = vec![
        text("enclave.log.stream", record.stream.name()),
        text("enclave.log.source", record.source.name()),
        json!({
            "key": "enclave.log.sequence",
            "value": { "intValue": record.sequence.to_string() },
        }),
    ];
    if let Source::Stdout | Source::Stderr = record.source {
        attributes.push(text("log.iostream", record.source.name()));
    }
    if let Some(workload) = record.workload {
        attributes.push(text("enclave.workload", workload));
    }
    if record.continues {
        attributes.push(json!({
            "key": "enclave.log.continues",
            "value": { "boolValue": true },
        }));
    }
    // 64-bit numbers are text in this encoding.
    json!({
        "timeUnixNano": (u128::from(record.time_us) * 1000).min(u128::from(u64::MAX)).to_string(),
        "observedTimeUnixNano": (u128::from(stored_us) * 1000).to_string(),
        "severityNumber": severity.0,
        "severityText": severity.1,
        "body": body,
        "attributes": attributes,
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn a_request_is_as_the_protocol_wants_it() {
        let mut batch = LogBatch::new(&"payments".parse().unwrap());
        let mut record = Stored {
            stream: LogStream::Errors,
            sequence: 7,
            time_us: 5,
            source: Source::Stderr,
            continues: true,
            workload: Some("web"),
            data: b"text",
        };
        assert!(batch.push(&record, 6));
        record.data = b"\xff";
        assert!(batch.push(&record, 6));
        let request: Value = serde_json::from_slice(&batch.finish()).unwrap();
        let logs = &request["resourceLogs"][0];
        let name = &logs["resource"]["attributes"][0]["value"]["stringValue"];
        assert_eq!(name, "payments");
        let records = logs["scopeLogs"][0]["logRecords"].as_array().unwrap();
        assert_eq!(records.len(), 2);
        assert_eq!(records[0]["timeUnixNano"], "5000");
        assert_eq!(records[0]["observedTimeUnixNano"], "6000");
        assert_eq!(records[0]["severityNumber"], 17);
        let attributes = records[0]["attributes"].as_array().unwrap();
        let workload = json!({ "key": "enclave.workload", "value": { "stringValue": "web" } });
        assert!(attributes.contains(&workload), "{attributes:?}");
        assert_eq!(records[0]["body"]["stringValue"], "text");
        assert_eq!(records[1]["body"]["bytesValue"], "/w==");
    }
}
