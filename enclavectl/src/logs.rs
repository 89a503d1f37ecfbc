//! An enclave's log.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::Context;
use aws_request::{Error, Service};
use aws_sdk_cloudwatchlogs::types::FilteredLogEvent;
use command_output::{errln, outln};
use serde_json::json;
use time::OffsetDateTime;
use tokio::time::sleep;

use crate::End;
use crate::cli::Logs;
use crate::cloud::Cloud;
use plain_text::plain;

/// How often the service is asked for what came.
const PAUSE: Duration = Duration::from_secs(2);
/// Events may come late; the service is asked again for so much of the past.
const OVERLAP_MS: i64 = 60_000;
/// Streams that an enclave's group has.
const STREAMS: [&str; 4] = ["application", "system", "health", "errors"];

pub(crate) async fn run(cloud: &Cloud, arguments: &Logs, json: bool) -> anyhow::Result<End> {
    if let Some(stream) = &arguments.stream
        && !STREAMS.contains(&stream.as_str())
    {
        errln!(
            "enclavectl: {stream} is not a stream: use one of {}",
            STREAMS.join(", ")
        );
        return Ok(End::Refused);
    }
    let group = format!("{}{}", cloud.parts.log_group_prefix, arguments.id);
    let now = OffsetDateTime::now_utc().unix_timestamp() * 1000;
    let since = i64::try_from(arguments.since.saturating_mul(60_000)).unwrap_or(i64::MAX);
    let mut from = now.saturating_sub(since).max(0);
    let mut shown = HashSet::new();
    loop {
        let mut latest = from;
        let mut seen = HashSet::new();
        let mut pages = cloud
            .logs
            .filter_log_events()
            .log_group_name(&group)
            .set_log_stream_names(arguments.stream.clone().map(|stream| vec![stream]))
            .start_time(from)
            .into_paginator()
            .send();
        while let Some(page) = pages.next().await {
            let page =
                page.map_err(|error| Error::of_call(Service::Logs, "FilterLogEvents", &error));
            let page = match page {
                Ok(page) => page,
                Err(error) if error.is_not_found() => {
                    errln!(
                        "enclavectl: {} has no log yet: it is created when the enclave is deployed",
                        arguments.id
                    );
                    return Ok(End::Failed);
                }
                Err(error) => return Err(error).context("the log cannot be read"),
            };
            for event in page.events() {
                latest = latest.max(event.timestamp().unwrap_or_default());
                let id = event.event_id().unwrap_or_default();
                if !shown.contains(id) {
                    print(event, json);
                }
                seen.insert(id.to_owned());
            }
        }
        if !arguments.follow || command_output::reader_is_gone() {
            return Ok(End::Done);
        }
        shown = seen;
        from = from.max(latest.saturating_sub(OVERLAP_MS));
        tokio::select! {
            () = sleep(PAUSE) => {}
            _ = tokio::signal::ctrl_c() => return Ok(End::Done),
        }
    }
}

fn print(event: &FilteredLogEvent, json: bool) {
    let timestamp = event.timestamp().unwrap_or_default();
    let stream = event.log_stream_name().unwrap_or_default();
    let message = event.message().unwrap_or_default();
    if json {
        let line = json!({ "timestamp": timestamp, "stream": stream, "message": message });
        outln!("{line}");
        return;
    }
    let time = OffsetDateTime::from_unix_timestamp(timestamp / 1000)
        .map(control_plane_model::item::timestamp)
        .unwrap_or_default();
    outln!("{time}  {stream:<11}  {}", plain(message.trim_end()));
}
