//! Calls to the service.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_request::logs::{Event, Rejected};
use aws_request::{Client, ConfigError, Error};
use link::logs::LogStream;
use tracing::{info, warn};

use super::config::CloudWatchConfig;
use super::retry::classify;
use crate::aws;
use crate::names::Names;
use crate::sink::{ErrorClass, SendError};

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the credentials' source may take to answer.
const CREDENTIALS_TIMEOUT: Duration = Duration::from_secs(30);

/// Why the service cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the sink cloudwatch cannot be used: {0}")]
pub struct ConnectError(#[from] ConfigError);

/// The service, for one log group.
pub(in crate::sink) struct Service {
    config: CloudWatchConfig,
    client: Mutex<Client>,
}

impl Service {
    /// A client with the environment's region, credentials and endpoint.
    /// Nothing is sent yet, except to ask an instance for its region.
    pub(in crate::sink) async fn connect(config: CloudWatchConfig) -> Result<Self, ConnectError> {
        let client = load(&config).await?;
        Ok(Self {
            config,
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
        events: &[Event],
    ) -> Result<Vec<(&'static str, u64)>, SendError> {
        let client = self.client();
        let (group, stream) = (self.config.group.as_str(), stream.name());
        match client.logs().put_events(group, stream, events).await {
            Ok(rejected) => Ok(refused(&rejected, events.len())),
            // Older services say so of a batch that was taken before its answer
            // was lost.
            Err(error) if error.code() == Some("DataAlreadyAcceptedException") => Ok(Vec::new()),
            Err(error) => Err(classify(&error)),
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
        let client = self.client();
        let (group, stream) = (self.config.group.as_str(), stream.name());
        match client.logs().create_stream(group, stream).await {
            Err(error) if !exists(&error) => Err(classify(&error)),
            _ => Ok(()),
        }
    }

    async fn create_group(&self) -> Result<(), SendError> {
        let group = self.config.group.as_str();
        let client = self.client();
        match client.logs().create_group(group).await {
            Ok(()) => info!(group, "the log group was made"),
            // Whoever made it has set its retention.
            Err(error) if exists(&error) => return Ok(()),
            Err(error) => return Err(classify(&error)),
        }
        let days = self.config.retention.get();
        if let Err(error) = client.logs().put_retention(group, days).await {
            warn!(group, "the log group keeps its events for ever: {error}");
        }
        Ok(())
    }

    /// Forgets the credentials and reads them again.
    async fn reload(&self) {
        match load(&self.config).await {
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

async fn load(config: &CloudWatchConfig) -> Result<Client, ConfigError> {
    let loaded = aws::loader(&aws::http(), config.region.as_deref())
        // The forwarder tries again, and counts.
        .retry_config(RetryConfig::disabled())
        .timeout_config(
            TimeoutConfig::builder()
                .connect_timeout(CONNECT_TIMEOUT)
                .operation_attempt_timeout(CREDENTIALS_TIMEOUT)
                .build(),
        )
        .load()
        .await;
    Client::with_resolver(&loaded, Names::from_system())
}

fn exists(error: &Error) -> bool {
    error.code() == Some("ResourceAlreadyExistsException")
}

/// Counts the events that the service has not taken: those before one place and
/// those from another on.
fn refused(rejected: &Rejected, events: usize) -> Vec<(&'static str, u64)> {
    let events = events as u64;
    let too_old = rejected.too_old_log_event_end_index.unwrap_or(0);
    let expired = rejected.expired_log_event_end_index.unwrap_or(0);
    let too_new = rejected.too_new_log_event_start_index.unwrap_or(events);
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
        let rejected = Rejected {
            too_old_log_event_end_index: Some(2),
            expired_log_event_end_index: Some(5),
            too_new_log_event_start_index: Some(8),
        };
        assert_eq!(
            refused(&rejected, 10),
            [
                ("too old", 2),
                ("older than the retention", 3),
                ("too far in the future", 2)
            ]
        );
        assert_eq!(refused(&Rejected::default(), 10), []);
    }
}
