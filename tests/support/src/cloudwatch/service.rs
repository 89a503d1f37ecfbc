//! The service: its groups and streams, and what it answers.

use std::collections::{BTreeMap, VecDeque};

use anyhow::Context;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime};

use super::server::Answer;
use super::{Batch, Check, Counts, Fault, limits};

/// The stream whose calls fail one by one: that of the workload.
const FAILING: &str = "application";

/// How a call says when it was signed.
const SIGNED_AT: &[BorrowedFormatItem<'_>] =
    format_description!("[year][month][day]T[hour][minute][second]Z");
/// How far that may be from the service's time, in seconds.
const MAX_SIGNATURE_AGE: i64 = 5 * 60;

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Event {
    pub(super) timestamp: i64,
    pub(super) message: String,
}

/// The parameters of every call.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Call {
    log_group_name: String,
    #[serde(default)]
    log_stream_name: String,
    #[serde(default)]
    log_events: Vec<Event>,
    retention_in_days: Option<i64>,
}

/// What it holds, and how it fails.
#[derive(Default)]
pub(super) struct State {
    pub(super) groups: BTreeMap<String, Group>,
    /// How every call fails.
    pub(super) fault: Option<Fault>,
    /// How the next calls fail.
    pub(super) next: VecDeque<Fault>,
    pub(super) poison: Option<String>,
    /// How far its clock is ahead of everybody's, in seconds.
    pub(super) ahead: i64,
    pub(super) counts: Counts,
    pub(super) check: Option<Check>,
    /// The first breach of a limit or of the check.
    pub(super) breach: Option<String>,
}

#[derive(Default)]
pub(super) struct Group {
    pub(super) retention: Option<i64>,
    pub(super) streams: BTreeMap<String, Vec<Batch>>,
}

impl Fault {
    /// The answer, if the call is not carried out.
    pub(super) fn refusal(self) -> Option<Answer> {
        Some(match self {
            Self::None | Self::Hang | Self::TakenButNotAnswered | Self::TooOld(_) => return None,
            Self::Down => Answer::Break(b""),
            Self::Throttled => error(StatusCode::BAD_REQUEST, "ThrottlingException"),
            Self::ServerError => error(StatusCode::INTERNAL_SERVER_ERROR, "InternalFailure"),
            Self::Unavailable => error(
                StatusCode::SERVICE_UNAVAILABLE,
                "ServiceUnavailableException",
            ),
            Self::ExpiredToken => error(StatusCode::BAD_REQUEST, "ExpiredTokenException"),
            Self::Denied => error(StatusCode::BAD_REQUEST, "AccessDeniedException"),
            Self::NoJson => respond(StatusCode::OK, "<html>".to_owned()),
            Self::ClosedHalfWay => Answer::Break(b"HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\n{"),
        })
    }
}

impl State {
    /// The service's time, in seconds since 1970.
    pub(super) fn now(&self) -> i64 {
        OffsetDateTime::now_utc().unix_timestamp() + self.ahead
    }

    /// Why a call that was signed at this time is not taken, if it is not.
    pub(super) fn refusal(&self, signed: &str) -> Option<Answer> {
        let signed = PrimitiveDateTime::parse(signed, SIGNED_AT).ok()?;
        let age = self.now() - signed.assume_utc().unix_timestamp();
        (age.abs() > MAX_SIGNATURE_AGE)
            .then(|| error(StatusCode::BAD_REQUEST, "InvalidSignatureException"))
    }

    /// The first breach is the one that is told.
    pub(super) fn broken(&mut self, error: &anyhow::Error) {
        self.breach.get_or_insert_with(|| format!("{error:#}"));
    }

    /// The answers of the service itself.
    pub(super) fn carry_out(&mut self, action: &str, body: &[u8]) -> Answer {
        let call: Call = match serde_json::from_slice(body) {
            Ok(call) => call,
            Err(error) => {
                self.broken(&anyhow::Error::new(error).context(action.to_owned()));
                return self::error(StatusCode::BAD_REQUEST, "SerializationException");
            }
        };
        if action == "CreateLogGroup" {
            let is_new = !self.groups.contains_key(&call.log_group_name);
            self.groups.entry(call.log_group_name).or_default();
            return created(is_new);
        }
        let Some(group) = self.groups.get_mut(&call.log_group_name) else {
            return not_found();
        };
        match action {
            "PutRetentionPolicy" => {
                group.retention = call.retention_in_days;
                ok(&json!({}))
            }
            "CreateLogStream" => {
                let is_new = !group.streams.contains_key(&call.log_stream_name);
                group.streams.entry(call.log_stream_name).or_default();
                created(is_new)
            }
            "PutLogEvents" if group.streams.contains_key(&call.log_stream_name) => self.put(call),
            "PutLogEvents" => not_found(),
            other => {
                self.broken(&anyhow::anyhow!("an unexpected call: {other}"));
                error(StatusCode::BAD_REQUEST, "UnknownOperationException")
            }
        }
    }

    fn put(&mut self, mut call: Call) -> Answer {
        if let Err(error) = limits::check(&call.log_events) {
            self.broken(&error);
        }
        let is_poison = |event: &Event| self.poison.as_ref() == Some(&event.message);
        if call.log_events.iter().any(is_poison) {
            return error(StatusCode::BAD_REQUEST, "InvalidParameterException");
        }
        let fault = match call.log_stream_name.as_str() {
            FAILING => self.next.pop_front(),
            _ => None,
        };
        let fault = fault.unwrap_or(Fault::None);
        if let Some(refusal) = fault.refusal() {
            return refusal;
        }
        let mut answer = json!({ "nextSequenceToken": "1" });
        if let Fault::TooOld(count) = fault {
            call.log_events.drain(..count.min(call.log_events.len()));
            answer = json!({ "rejectedLogEventsInfo": { "tooOldLogEventEndIndex": count } });
        }
        self.accept(call);
        match fault {
            Fault::TakenButNotAnswered => Answer::Break(b""),
            _ => ok(&answer),
        }
    }

    /// What an emulator has taken is held against the limits all the same.
    pub(super) fn taken_by_emulator(&mut self, body: &[u8]) {
        match serde_json::from_slice::<Call>(body).context("PutLogEvents") {
            Ok(call) => {
                if let Err(error) = limits::check(&call.log_events) {
                    self.broken(&error);
                }
                self.accept(call);
            }
            Err(error) => self.broken(&error),
        }
    }

    /// Counts events, and keeps them or hands them to the check.
    fn accept(&mut self, call: Call) {
        let Call {
            log_group_name: group,
            log_stream_name: stream,
            log_events: events,
            ..
        } = call;
        self.counts.batches += 1;
        self.counts.events += events.len() as u64;
        self.counts.fill += limits::fill(&events) as u64;
        let Some(check) = &mut self.check else {
            let group = self.groups.entry(group).or_default();
            let batches = group.streams.entry(stream).or_default();
            batches.push(Batch { events });
            return;
        };
        let checked = events
            .iter()
            .try_for_each(|event| check(&stream, event.timestamp, &event.message));
        if let Err(error) = checked {
            self.broken(&error);
        }
        if !group.starts_with("/aws/ec2/enclave/") {
            self.broken(&anyhow::anyhow!("events for the group {group:?}"));
        }
    }
}

fn created(is_new: bool) -> Answer {
    if is_new {
        ok(&json!({}))
    } else {
        error(StatusCode::BAD_REQUEST, "ResourceAlreadyExistsException")
    }
}

fn not_found() -> Answer {
    error(StatusCode::BAD_REQUEST, "ResourceNotFoundException")
}

fn ok(body: &Value) -> Answer {
    respond(StatusCode::OK, body.to_string())
}

fn error(status: StatusCode, code: &str) -> Answer {
    let body = json!({ "__type": code, "message": "as the test wants it" });
    respond(status, body.to_string())
}

fn respond(status: StatusCode, body: String) -> Answer {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let json = hyper::header::HeaderValue::from_static("application/x-amz-json-1.1");
    response
        .headers_mut()
        .insert(hyper::header::CONTENT_TYPE, json);
    Answer::Response(response)
}
