//! An enclave's log.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::Context;
use aws_request::logs::{FoundEvent, Search};
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
const OVERLAP_MS: u64 = 60_000;
/// Streams that an enclave's group has.
const STREAMS: [&str; 4] = ["application", "system", "health", "errors"];

pub(crate) async fn run(cloud: &Cloud, arguments: &Logs, json: bool) -> anyhow::Result<End> {
    if let Some(stream) = &arguments.stream
        && !STREAMS.contains(&stream.as_str())
    {
        eprintln!(
            "enclavectl: {stream} is not a stream: use one of {}",
            STREAMS.join(", ")
        );
        return Ok(End::Refused);
    }
    let group = format!("{}{}", cloud.parts.log_group_prefix, arguments.id);
    let streams: Vec<&str> = arguments.stream.iter().map(String::as_str).collect();
    let now = u64::try_from(OffsetDateTime::now_utc().unix_timestamp()).unwrap_or_default() * 1000;
    let mut from = now.saturating_sub(arguments.since.saturating_mul(60_000));
    let mut shown = HashSet::new();
    loop {
        let mut latest = from;
        let mut next: Option<String> = None;
        let mut seen = HashSet::new();
        loop {
            let search = Search {
                log_group_name: &group,
                log_stream_names: &streams,
                start_time: Some(from),
                filter_pattern: None,
                next_token: next.as_deref(),
            };
            let page = match cloud.aws.logs().filter_events(&search).await {
                Ok(page) => page,
                Err(error) if error.is_not_found() => {
                    eprintln!(
                        "enclavectl: {} has no log yet: it is created when the enclave is deployed",
                        arguments.id
                    );
                    return Ok(End::Failed);
                }
                Err(error) => return Err(error).context("the log cannot be read"),
            };
            for event in page.events {
                latest = latest.max(event.timestamp);
                if !shown.contains(&event.event_id) {
                    print(&event, json);
                }
                seen.insert(event.event_id);
            }
            next = page.next_token;
            if next.is_none() {
                break;
            }
        }
        if !arguments.follow {
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

fn print(event: &FoundEvent, json: bool) {
    if json {
        let line = json!({
            "timestamp": event.timestamp,
            "stream": event.log_stream_name,
            "message": event.message,
        });
        println!("{line}");
        return;
    }
    let seconds = i64::try_from(event.timestamp / 1000).unwrap_or_default();
    let time = OffsetDateTime::from_unix_timestamp(seconds)
        .map(control_plane_model::item::timestamp)
        .unwrap_or_default();
    println!(
        "{time}  {:<11}  {}",
        event.log_stream_name,
        plain(event.message.trim_end())
    );
}
