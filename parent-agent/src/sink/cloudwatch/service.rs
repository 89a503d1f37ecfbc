//! Calls to the service.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aws_config::ConfigLoader;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_cloudwatchlogs::Client;
use aws_sdk_cloudwatchlogs::config::SharedHttpClient;
use aws_sdk_cloudwatchlogs::operation::create_log_group::CreateLogGroupError;
use aws_sdk_cloudwatchlogs::operation::create_log_stream::CreateLogStreamError;
use aws_sdk_cloudwatchlogs::operation::put_log_events::PutLogEventsError;
use aws_sdk_cloudwatchlogs::types::{InputLogEvent, RejectedLogEventsInfo};
use link::logs::LogStream;
use thiserror::Error;
use tracing::{info, warn};

use super::config::CloudWatchConfig;
use super::retry::classify;
use crate::aws;
use crate::sink::{ErrorClass, SendError};

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a request may take from its start to its answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Why the service cannot be used.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// No region is known.
    #[error(
        "the sink cloudwatch needs a region, and neither the environment nor the instance names one: set AWS_REGION"
    )]
    NoRegion,
}

/// The service, for one log group.
pub(in crate::sink) struct Service {
    config: CloudWatchConfig,
    http: SharedHttpClient,
    client: Mutex<Client>,
}

impl Service {
    /// A client with the environment's region, credentials and endpoint.
    /// Nothing is sent yet, except to ask an instance for its region.
    pub(in crate::sink) async fn connect(config: CloudWatchConfig) -> Result<Self, ConnectError> {
        let http = aws::http();
        let loaded = loader(&http, config.region.as_deref()).load().await;
        if loaded.region().is_none() {
            return Err(ConnectError::NoRegion);
        }
        Ok(Self {
            config,
            http,
            client: Mutex::new(Client::new(&loaded)),
        })
    }

    /// Sends events, and makes the group and the stream if they are not there.
    /// The answer is how many were refused for good, by reason.
    pub(super) async fn put(
        &self,
        stream: LogStream,
        events: &[InputLogEvent],
    ) -> Result<Vec<(&'static str, u64)>, SendError> {
        let error = match self.put_once(stream, events).await {
            Err(error) => error,
            taken => return taken,
        };
        match error.class {
            ErrorClass::NotFound => {
                self.create(stream).await?;
                self.put_once(stream, events).await
            }
            ErrorClass::Credentials => {
                self.reload().await;
                Err(error)
            }
            _ => Err(error),
        }
    }

    async fn put_once(
        &self,
        stream: LogStream,
        events: &[InputLogEvent],
    ) -> Result<Vec<(&'static str, u64)>, SendError> {
        let result = self
            .client()
            .put_log_events()
            .log_group_name(self.config.group.as_str())
            .log_stream_name(stream.name())
            .set_log_events(Some(events.to_vec()))
            .send()
            .await;
        match result {
            Ok(output) => Ok(output
                .rejected_log_events_info()
                .map(|rejected| refused(rejected, events.len()))
                .unwrap_or_default()),
            // Older services say so of a batch that was taken before its answer
            // was lost.
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(PutLogEventsError::is_data_already_accepted_exception) =>
            {
                Ok(Vec::new())
            }
            Err(error) => Err(classify("PutLogEvents", &error)),
        }
    }

    /// Makes the stream, and before it the group if that is not there either.
    /// Others may do the same at the same time.
    async fn create(&self, stream: LogStream) -> Result<(), SendError> {
        match self.create_stream(stream).await {
            Err(error) if error.class == ErrorClass::NotFound => {}
            other => return other,
        }
        self.create_group().await?;
        self.create_stream(stream).await
    }

    async fn create_stream(&self, stream: LogStream) -> Result<(), SendError> {
        let result = self
            .client()
            .create_log_stream()
            .log_group_name(self.config.group.as_str())
            .log_stream_name(stream.name())
            .send()
            .await;
        match result {
            Ok(_) => Ok(()),
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(CreateLogStreamError::is_resource_already_exists_exception) =>
            {
                Ok(())
            }
            Err(error) => Err(classify("CreateLogStream", &error)),
        }
    }

    async fn create_group(&self) -> Result<(), SendError> {
        let group = self.config.group.as_str();
        let result = self
            .client()
            .create_log_group()
            .log_group_name(group)
            .send()
            .await;
        match result {
            Ok(_) => info!(group, "the log group was made"),
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(CreateLogGroupError::is_resource_already_exists_exception) =>
            {
                // Whoever made it has set its retention.
                return Ok(());
            }
            Err(error) => return Err(classify("CreateLogGroup", &error)),
        }
        let result = self
            .client()
            .put_retention_policy()
            .log_group_name(group)
            .retention_in_days(self.config.retention.get())
            .send()
            .await;
        if let Err(error) = result {
            let SendError { message, .. } = classify("PutRetentionPolicy", &error);
            warn!(group, "the log group keeps its events for ever: {message}");
        }
        Ok(())
    }

    /// Forgets the credentials and reads them again.
    async fn reload(&self) {
        let client = Client::new(
            &loader(&self.http, self.config.region.as_deref())
                .load()
                .await,
        );
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = client;
    }

    fn client(&self) -> Client {
        self.client
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

fn loader(http: &SharedHttpClient, region: Option<&str>) -> ConfigLoader {
    aws::loader(http, region)
        // The forwarder tries again, and counts.
        .retry_config(RetryConfig::disabled())
        .timeout_config(
            TimeoutConfig::builder()
                .connect_timeout(CONNECT_TIMEOUT)
                .operation_attempt_timeout(REQUEST_TIMEOUT)
                .build(),
        )
}

/// Counts the events that the service has not taken: those before one place and
/// those from another on.
fn refused(rejected: &RejectedLogEventsInfo, events: usize) -> Vec<(&'static str, u64)> {
    let events = events as u64;
    let place = |place: Option<i32>| place.map(|place| u64::try_from(place).unwrap_or(0));
    let too_old = place(rejected.too_old_log_event_end_index()).unwrap_or(0);
    let expired = place(rejected.expired_log_event_end_index()).unwrap_or(0);
    let too_new = place(rejected.too_new_log_event_start_index()).unwrap_or(events);
    [
        ("too old", too_old.min(events)),
        (
            "older than the retention",
            expired.min(events).saturating_sub(too_old),
        ),
        ("too far in the future", events.saturating_sub(too_new)),
    ]
    .into_iter()
    .filter(|&(_, count)| count > 0)
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_events_are_counted_once_each() {
        let rejected = RejectedLogEventsInfo::builder()
            .too_old_log_event_end_index(2)
            .expired_log_event_end_index(5)
            .too_new_log_event_start_index(8)
            .build();
        assert_eq!(
            refused(&rejected, 10),
            [
                ("too old", 2),
                ("older than the retention", 3),
                ("too far in the future", 2)
            ]
        );
        assert_eq!(refused(&RejectedLogEventsInfo::builder().build(), 10), []);
    }
}
