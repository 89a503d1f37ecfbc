//! The metadata service of the instance that this process runs on.

use std::time::Duration;

use aws_config::imds;
use aws_config::imds::client::error::ImdsError;
use aws_config::provider_config::ProviderConfig;

use crate::MetadataError;
use crate::clients::http;

/// How long the service may take to be reached: it is on this very host.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const READ_TIMEOUT: Duration = Duration::from_secs(2);
const ATTEMPTS: u32 = 3;

/// The service, version 2 only. Its tokens last for six hours and are renewed as they
/// expire. `AWS_EC2_METADATA_SERVICE_ENDPOINT` names another address.
#[derive(Debug)]
pub struct Metadata(imds::Client);

impl Metadata {
    /// The service; it is not asked yet.
    pub fn from_environment() -> Self {
        let config = ProviderConfig::default().with_http_client(http());
        Self(
            imds::Client::builder()
                .configure(&config)
                .connect_timeout(CONNECT_TIMEOUT)
                .read_timeout(READ_TIMEOUT)
                .max_attempts(ATTEMPTS)
                .build(),
        )
    }

    /// What is at `path`, if it is there.
    pub async fn get(&self, path: &str) -> Result<Option<String>, MetadataError> {
        match self.0.get(path).await {
            Ok(value) => Ok(Some(value.as_ref().to_owned())),
            Err(ImdsError::ErrorResponse(response)) => {
                match response.response().status().as_u16() {
                    404 => Ok(None),
                    status => Err(MetadataError::Refused(status)),
                }
            }
            Err(error) => Err(MetadataError::Unreachable(words(&error))),
        }
    }
}

/// The innermost cause says what happened, in the fewest words.
fn words(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
