//! Nothing, in the place of the service: an agent without the feature `aws`.

use link::logs::LogStream;

use super::batch::Event;
use super::config::CloudWatchConfig;
use crate::aws::ConfigError;
use crate::sink::SendError;

/// Why the service cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the sink cloudwatch cannot be used: {0}")]
pub struct ConnectError(#[from] ConfigError);

/// The service, which is not there.
pub(in crate::sink) enum Service {}

impl Service {
    #[expect(clippy::unused_async, reason = "a region is waited for")]
    pub(in crate::sink) async fn connect(_: CloudWatchConfig) -> Result<Self, ConnectError> {
        Err(ConfigError.into())
    }

    pub(super) async fn put(
        &self,
        _: LogStream,
        _: &[Event],
    ) -> Result<Vec<(&'static str, u64)>, SendError> {
        match *self {}
    }
}
