//! A record as a line, for people or as JSON.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use plain_text::plain;
use serde::Serialize;
use time::OffsetDateTime;

use super::Stored;

/// Appends a log record as one line: `TIME STREAM | TEXT`, with `WORKLOAD | ` before the text
/// where there are several workloads, or JSON that keeps every byte.
pub fn log_line(record: &Stored<'_>, json: bool, lines: &mut Vec<u8>) {
    let time = timestamp(record.time_us);
    let stream = record.stream.name();
    if json {
        let text = std::str::from_utf8(record.data).ok();
        let line = LogLine {
            event: "log",
            time,
            stream,
            source: record.source.name(),
            sequence: record.sequence,
            continues: record.continues,
            workload: record.workload,
            text,
            base64: text.is_none().then(|| STANDARD.encode(record.data)),
        };
        lines.extend(serde_json::to_vec(&line).expect("nothing that JSON cannot express"));
        lines.push(b'\n');
    } else {
        let text = plain(&String::from_utf8_lossy(record.data));
        let goes_on = if record.continues { "…" } else { "" };
        let workload = record.workload.map(|name| format!("{name} | "));
        let workload = workload.unwrap_or_default();
        lines.extend(format!("{time} {stream:<11} | {workload}{text}{goes_on}\n").into_bytes());
    }
}

#[derive(Serialize)]
struct LogLine<'a> {
    event: &'static str,
    time: String,
    stream: &'static str,
    source: &'static str,
    sequence: u64,
    continues: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    workload: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
}

/// RFC 3339 with microseconds, in UTC; a time beyond the year 9999 stays a number.
pub fn timestamp(microseconds: u64) -> String {
    let nanoseconds = i128::from(microseconds) * 1000;
    match OffsetDateTime::from_unix_timestamp_nanos(nanoseconds) {
        Ok(time) => format!(
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z",
            time.year(),
            u8::from(time.month()),
            time.day(),
            time.hour(),
            time.minute(),
            time.second(),
            time.microsecond()
        ),
        Err(_) => format!("{microseconds}us"),
    }
}

#[cfg(test)]
mod tests {
    use link::logs::LogStream;
    use proptest::prelude::*;

    use super::*;
    use crate::Source;

    fn record(data: &[u8]) -> Stored<'_> {
        Stored {
            stream: LogStream::Application,
            sequence: 7,
            time_us: 1_767_225_600_123_456,
            source: Source::Stderr,
            continues: false,
            workload: None,
            data,
        }
    }

    fn line(data: &[u8], json: bool) -> String {
        let mut lines = Vec::new();
        log_line(&record(data), json, &mut lines);
        String::from_utf8(lines).unwrap()
    }

    #[test]
    fn a_record_is_one_readable_line() {
        assert_eq!(
            line(b"hello\tworld", false),
            "2026-01-01T00:00:00.123456Z application | hello\tworld\n"
        );
        let mut named = Vec::new();
        let workload = Some("web");
        log_line(
            &Stored {
                workload,
                ..record(b"hello")
            },
            false,
            &mut named,
        );
        assert!(named.ends_with(b" application | web | hello\n"));
        assert!(line(b"\x1b]0;x\x07\r\xff", false).ends_with("| \\u{1b}]0;x\\u{7}\\r\u{fffd}\n"));
        assert_eq!(timestamp(u64::MAX), format!("{}us", u64::MAX));
    }

    proptest! {
        #[test]
        fn json_keeps_every_byte(data in proptest::collection::vec(any::<u8>(), 0..100)) {
            let line = line(&data, true);
            prop_assert_eq!(line.matches('\n').count(), 1);
            let value: serde_json::Value = serde_json::from_str(&line).unwrap();
            let kept = match (&value["text"], &value["base64"]) {
                (serde_json::Value::String(text), _) => text.clone().into_bytes(),
                (_, serde_json::Value::String(base64)) => STANDARD.decode(base64).unwrap(),
                _ => return Err(TestCaseError::fail(line)),
            };
            prop_assert_eq!(kept, data);
        }
    }
}
