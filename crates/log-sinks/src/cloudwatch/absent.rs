//! Nothing, in the place of the service: a build without the feature `cloudwatch`.

#![expect(
    clippy::unused_async,
    reason = "what stands here otherwise is waited for"
)]

use aws_smithy_runtime_api::client::dns::SharedDnsResolver;
use link::logs::LogStream;

use super::batch::Event;
use super::config::CloudWatchConfig;
use crate::SendError;

/// Why the service cannot be used.
#[derive(Debug, thiserror::Error)]
#[error(
    "the sink cloudwatch cannot be used: this build of the agent has no AWS clients: use a released one, or build it with the feature `aws`, which is on by default"
)]
pub struct ConnectError;

/// The service, which is not there.
pub(crate) enum Service {}

impl Service {
    pub(crate) async fn connect(
        _: CloudWatchConfig,
        _: SharedDnsResolver,
    ) -> Result<Self, ConnectError> {
        Err(ConnectError)
    }

    pub(super) async fn put(
        &self,
        _: LogStream,
        _: &[Event],
    ) -> Result<Vec<(&'static str, u64)>, SendError> {
        match *self {}
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use aws_smithy_runtime_api::client::dns::{DnsFuture, ResolveDns};

    use super::*;
    use crate::cloudwatch::config::RetentionDays;

    #[derive(Debug)]
    struct NoNames;

    impl ResolveDns for NoNames {
        fn resolve_dns<'a>(&'a self, _: &'a str) -> DnsFuture<'a> {
            DnsFuture::ready(Ok(Vec::<IpAddr>::new()))
        }
    }

    #[tokio::test]
    async fn cloudwatch_is_refused_by_a_build_without_it() {
        let config = CloudWatchConfig {
            region: None,
            group: "g".parse().unwrap(),
            retention: RetentionDays::default(),
        };
        let connected = Service::connect(config, SharedDnsResolver::new(NoNames)).await;
        let error = connected.err().unwrap().to_string();
        assert!(error.contains("has no AWS clients"), "{error}");
        assert!(error.contains("feature `aws`"), "{error}");
    }
}
