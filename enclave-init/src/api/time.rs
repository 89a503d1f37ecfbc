//! `GET /v1/time`: the time, how wrong it can be, and who says so.

use hyper::StatusCode;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::failure::{Code, Failure};
use super::{Answer, Api};
use crate::clock::{Clock, Report, microseconds};

pub(super) fn read(api: &Api) -> Result<Answer, Failure> {
    let report = api.clock.report().map_err(|error| {
        let reason = format!("the clock cannot be read: {error}");
        Failure::new(Code::InitFailed, reason)
    })?;
    Ok(Answer::json(StatusCode::OK, &describe(&api.clock, &report)))
}

fn describe(clock: &Clock, report: &Report) -> Value {
    let sources = report.sources.iter().map(|(source, standing)| {
        let is_used = report.source == Some(*source);
        json!({
            "name": source.name(),
            "used": is_used,
            "answers": standing.answers,
            "contradicted": standing.is_contradicted,
            "age_us": standing.age.map(microseconds),
            "width_us": standing.width.map(microseconds),
        })
    });
    let age = report
        .sources
        .iter()
        .find(|(source, _)| report.source == Some(*source))
        .and_then(|(_, standing)| standing.age);
    json!({
        "time": timestamp(report.time),
        "unix_ns": u64::try_from(report.time).ok(),
        "error_bound_us": report.error.map(microseconds),
        "state": report.state.name(),
        "detail": report.detail,
        "pauses": report.pauses,
        "last_sample_age_us": age.map(microseconds),
        "oscillator": clock.oscillator(),
        "sources": sources.collect::<Value>(),
    })
}

/// RFC 3339 with nanoseconds, in UTC.
fn timestamp(nanoseconds: i128) -> Option<String> {
    let time = OffsetDateTime::from_unix_timestamp_nanos(nanoseconds).ok()?;
    Some(format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:09}Z",
        time.year(),
        u8::from(time.month()),
        time.day(),
        time.hour(),
        time.minute(),
        time.second(),
        time.nanosecond()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339_with_nanoseconds() {
        let time = timestamp(1_767_225_600_123_456_789);
        assert_eq!(time.as_deref(), Some("2026-01-01T00:00:00.123456789Z"));
        assert_eq!(timestamp(i128::MAX), None);
    }
}
