//! Calls to the service.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aws_config::identity::IdentityCache;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_request::{ConfigError, Error, Service as AwsService};
use aws_sdk_cloudwatchlogs::Client;
use aws_sdk_cloudwatchlogs::error::{BuildError, ProvideErrorMetadata, SdkError};
use aws_sdk_cloudwatchlogs::types::{InputLogEvent, RejectedLogEventsInfo};
use aws_smithy_runtime_api::client::dns::SharedDnsResolver;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use link::logs::LogStream;
use tracing::{info, warn};

use super::batch::Event;
use super::config::CloudWatchConfig;
use super::retry::classify;
use crate::{ErrorClass, SendError};

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a call may take from its start to the end of its answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the source of credentials may take to answer.
const CREDENTIALS_TIMEOUT: Duration = Duration::from_secs(10);

/// Why the service cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the sink cloudwatch cannot be used: {0}")]
pub struct ConnectError(#[from] ConfigError);

/// The service, for one log group.
pub(crate) struct Service {
    config: CloudWatchConfig,
    resolver: SharedDnsResolver,
    client: Mutex<Client>,
}

impl Service {
    /// A client with the environment's region, credentials and endpoint.
    /// Nothing is sent yet, except to ask an instance for its region.
    pub(crate) async fn connect(
        config: CloudWatchConfig,
        resolver: SharedDnsResolver,
    ) -> Result<Self, ConnectError> {
        let client = load(&config, &resolver).await?;
        Ok(Self {
            config,
            resolver,
            client: Mutex::new(client),
        })
    }

    /// Sends events, and makes the group and the stream if they are not there.
    /// The answer is how many were refused for good, by reason.
    pub(super) async fn put(
        &self,
        stream: LogStream,
        events: &[Event],
    ) -> Result<Vec<(&'static str, u64)>, SendError> {
        let mut result = self.put_once(stream, events).await;
        // The answer has told the client the service's time, by which it signs from
        // now on.
        if result.as_ref().is_err_and(Error::blames_signature) {
            result = self.put_once(stream, events).await;
        }
        let error = match result {
            Ok(refused) => return Ok(refused),
            Err(error) => classify(&error),
        };
        match error.class {
            ErrorClass::NotFound => {
                self.create(stream).await?;
                let result = self.put_once(stream, events).await;
                return result.map_err(|error| classify(&error));
            }
            ErrorClass::Credentials => self.reload().await,
            _ => {}
        }
        Err(error)
    }

    async fn put_once(
        &self,
        stream: LogStream,
        events: &[Event],
    ) -> Result<Vec<(&'static str, u64)>, Error> {
        let sent: Result<Vec<_>, _> = events.iter().map(input).collect();
        let sent = sent.map_err(|error| Error::Request {
            service: AwsService::Logs,
            operation: "PutLogEvents",
            reason: error.to_string(),
        })?;
        let call = self.client().put_log_events();
        let call = call
            .log_group_name(self.config.group.as_str())
            .log_stream_name(stream.name())
            .set_log_events(Some(sent));
        match call.send().await {
            Ok(output) => Ok(output
                .rejected_log_events_info()
                .map_or_else(Vec::new, |rejected| refused(rejected, events.len()))),
            // Older services say so of a batch that was taken before its answer
            // was lost.
            Err(error) if error.code() == Some("DataAlreadyAcceptedException") => Ok(Vec::new()),
            Err(error) => Err(of_call("PutLogEvents", &error)),
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
        let call = self.client().create_log_stream();
        let call = call
            .log_group_name(self.config.group.as_str())
            .log_stream_name(stream.name());
        match call.send().await {
            Err(error) if !exists(&error) => Err(failed("CreateLogStream", &error)),
            _ => Ok(()),
        }
    }

    async fn create_group(&self) -> Result<(), SendError> {
        let group = self.config.group.as_str();
        let client = self.client();
        match client.create_log_group().log_group_name(group).send().await {
            Ok(_) => info!(group, "the log group was made"),
            // Whoever made it has set its retention.
            Err(error) if exists(&error) => return Ok(()),
            Err(error) => return Err(failed("CreateLogGroup", &error)),
        }
        let call = client
            .put_retention_policy()
            .log_group_name(group)
            .retention_in_days(self.config.retention.get());
        if let Err(error) = call.send().await {
            let error = of_call("PutRetentionPolicy", &error);
            warn!(group, "the log group keeps its events for ever: {error}");
        }
        Ok(())
    }

    /// Forgets the credentials and reads them again.
    async fn reload(&self) {
        match load(&self.config, &self.resolver).await {
            Ok(client) => *self.client.lock().unwrap_or_else(PoisonError::into_inner) = client,
            Err(error) => warn!("the credentials cannot be read again: {error}"),
        }
    }

    fn client(&self) -> Client {
        self.client
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

async fn load(
    config: &CloudWatchConfig,
    resolver: &SharedDnsResolver,
) -> Result<Client, ConfigError> {
    let mut loader = aws_config::defaults(BehaviorVersion::latest());
    if let Some(region) = &config.region {
        loader = loader.region(Region::new(region.clone()));
    }
    let config = loader
        .http_client(aws_request::http_client_with(resolver.clone()))
        // The forwarder tries again, and counts.
        .retry_config(RetryConfig::disabled())
        .timeout_config(
            TimeoutConfig::builder()
                .connect_timeout(CONNECT_TIMEOUT)
                .operation_attempt_timeout(CALL_TIMEOUT)
                .build(),
        )
        .identity_cache(
            IdentityCache::lazy()
                .load_timeout(CREDENTIALS_TIMEOUT)
                .build(),
        )
        .load()
        .await;
    aws_request::check(&config, AwsService::Logs)?;
    Ok(Client::new(&config))
}

fn input(event: &Event) -> Result<InputLogEvent, BuildError> {
    InputLogEvent::builder()
        .timestamp(i64::try_from(event.timestamp).unwrap_or(i64::MAX))
        .message(&event.message)
        .build()
}

fn of_call<E>(operation: &'static str, error: &SdkError<E, HttpResponse>) -> Error
where
    E: std::error::Error + ProvideErrorMetadata + 'static,
{
    Error::of_call(AwsService::Logs, operation, error)
}

fn failed<E>(operation: &'static str, error: &SdkError<E, HttpResponse>) -> SendError
where
    E: std::error::Error + ProvideErrorMetadata + 'static,
{
    classify(&of_call(operation, error))
}

fn exists<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> bool {
    error.code() == Some("ResourceAlreadyExistsException")
}

/// Counts the events that the service has not taken: those before one place and
/// those from another on.
fn refused(rejected: &RejectedLogEventsInfo, events: usize) -> Vec<(&'static str, u64)> {
    let place = |index: Option<i32>| index.map(|index| usize::try_from(index).unwrap_or(0));
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
    .map(|(reason, count)| (reason, count as u64))
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
