//! CloudWatch Logs.

use serde::{Deserialize, Serialize};

use crate::client::Client;
use crate::endpoint::Service;
use crate::error::Error;
use crate::json::{Operation, call};

/// An event that is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Event {
    /// Milliseconds since 1970, UTC.
    pub timestamp: u64,
    /// The text.
    pub message: String,
}

/// Which events of a request the service has not taken: those before one place,
/// and those from another on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rejected {
    /// Those before this place are too old.
    pub too_old_log_event_end_index: Option<u64>,
    /// Those before this place are older than the group keeps events.
    pub expired_log_event_end_index: Option<u64>,
    /// Those from this place on are too far in the future.
    pub too_new_log_event_start_index: Option<u64>,
}

/// An event that was found.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FoundEvent {
    /// Tells it from all other events.
    pub event_id: String,
    /// Its stream.
    pub log_stream_name: String,
    /// Milliseconds since 1970, UTC.
    pub timestamp: u64,
    /// The text.
    pub message: String,
}

/// What is looked for.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Search<'a> {
    /// The group's name.
    pub log_group_name: &'a str,
    /// The streams' names; all of the group's without any.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub log_stream_names: &'a [&'a str],
    /// Events from this time on, in milliseconds since 1970, UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<u64>,
    /// A pattern in the service's syntax.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter_pattern: Option<&'a str>,
    /// Where the page before ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_token: Option<&'a str>,
}

/// A page of what was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Page {
    /// The events, in the order of their times.
    pub events: Vec<FoundEvent>,
    /// Where this page ends; none at the end.
    pub next_token: Option<String>,
}

#[derive(Serialize)]
struct PutLogEvents<'a> {
    #[serde(rename = "logGroupName")]
    group: &'a str,
    #[serde(rename = "logStreamName")]
    stream: &'a str,
    #[serde(rename = "logEvents")]
    events: &'a [Event],
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PutLogEventsAnswer {
    rejected_log_events_info: Option<Rejected>,
}

#[derive(Serialize)]
struct Group<'a> {
    #[serde(rename = "logGroupName")]
    group: &'a str,
}

#[derive(Serialize)]
struct Stream<'a> {
    #[serde(rename = "logGroupName")]
    group: &'a str,
    #[serde(rename = "logStreamName")]
    stream: &'a str,
}

#[derive(Serialize)]
struct Retention<'a> {
    #[serde(rename = "logGroupName")]
    group: &'a str,
    #[serde(rename = "retentionInDays")]
    days: u32,
}

#[derive(Deserialize)]
struct Nothing {}

/// Calls to CloudWatch Logs.
#[derive(Debug, Clone, Copy)]
pub struct Logs<'a>(&'a Client);

impl Client {
    /// CloudWatch Logs.
    pub fn logs(&self) -> Logs<'_> {
        Logs(self)
    }
}

impl Logs<'_> {
    /// Sends events to a stream. The service takes at most 10,000 in the order of
    /// their times, within a day, with at most 1 MiB of messages and 26 bytes each.
    pub async fn put_events(
        self,
        group: &str,
        stream: &str,
        events: &[Event],
    ) -> Result<Rejected, Error> {
        let input = PutLogEvents {
            group,
            stream,
            events,
        };
        let answer: PutLogEventsAnswer = call(self.0, &operation("PutLogEvents"), &input).await?;
        Ok(answer.rejected_log_events_info.unwrap_or_default())
    }

    /// Makes a group.
    pub async fn create_group(self, group: &str) -> Result<(), Error> {
        let input = Group { group };
        let Nothing {} = call(self.0, &operation("CreateLogGroup"), &input).await?;
        Ok(())
    }

    /// Makes a stream in a group.
    pub async fn create_stream(self, group: &str, stream: &str) -> Result<(), Error> {
        let input = Stream { group, stream };
        let Nothing {} = call(self.0, &operation("CreateLogStream"), &input).await?;
        Ok(())
    }

    /// Sets how long a group keeps its events: one of the numbers of days that the
    /// service knows.
    pub async fn put_retention(self, group: &str, days: u32) -> Result<(), Error> {
        let input = Retention { group, days };
        let Nothing {} = call(self.0, &operation("PutRetentionPolicy"), &input).await?;
        Ok(())
    }

    /// Looks for events, one page of them. A page may be empty and not the last.
    pub async fn filter_events(self, search: &Search<'_>) -> Result<Page, Error> {
        call(self.0, &operation("FilterLogEvents"), search).await
    }
}

fn operation(name: &'static str) -> Operation {
    Operation {
        service: Service::Logs,
        name,
        target: "Logs_20140328",
    }
}
