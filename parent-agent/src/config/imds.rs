//! The instance metadata service, version 2 only.

use std::time::Duration;

use aws_config::imds;
use aws_config::imds::client::error::ImdsError as ClientError;
use aws_config::provider_config::ProviderConfig;
use thiserror::Error;

use crate::aws;

/// How long the service may take to be reached: it is on this very host.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const READ_TIMEOUT: Duration = Duration::from_secs(2);
const ATTEMPTS: u32 = 3;

/// Why the instance's metadata cannot be read.
#[derive(Debug, Error)]
pub enum ImdsError {
    /// Nobody answers.
    #[error(
        "the instance metadata service does not answer ({0}): outside EC2 name a file with --config; on an instance turn it on (HttpEndpoint=enabled) and, in a container, raise HttpPutResponseHopLimit to 2"
    )]
    Unreachable(String),
    /// It answers, but not with what was asked for.
    #[error("the instance metadata service refuses {path} with status {status}")]
    Refused {
        /// What was asked for.
        path: String,
        /// The HTTP status.
        status: u16,
    },
    /// There is no such tag.
    #[error(
        "the instance has no tag {tag}, or its tags are not in its metadata: set it, and InstanceMetadataTags=enabled", tag = super::source::TAG
    )]
    NoTag,
    /// There is no user data that is a configuration.
    #[error("the instance has no user data, or it is a script and not a configuration")]
    NoUserData,
}

/// The service of the instance that this process runs on. Its tokens last for
/// six hours and are renewed as they expire. `AWS_EC2_METADATA_SERVICE_ENDPOINT`
/// names another address.
#[derive(Debug)]
pub struct Imds(imds::Client);

impl Imds {
    /// The service; it is not asked yet.
    #[expect(
        clippy::new_without_default,
        reason = "it stands for a service, not for nothing"
    )]
    pub fn new() -> Self {
        let config = ProviderConfig::default().with_http_client(aws::http());
        Self(
            imds::Client::builder()
                .configure(&config)
                .connect_timeout(CONNECT_TIMEOUT)
                .read_timeout(READ_TIMEOUT)
                .max_attempts(ATTEMPTS)
                .build(),
        )
    }

    /// The value of an instance tag.
    pub async fn tag(&self, name: &str) -> Result<Option<String>, ImdsError> {
        let path = format!("/latest/meta-data/tags/instance/{name}");
        let value = self.get(&path).await?;
        Ok(value.map(|value| value.trim().to_owned()))
    }

    /// The user data, unless it is a script or an archive for cloud-init.
    pub async fn user_data(&self) -> Result<Option<String>, ImdsError> {
        let data = self.get("/latest/user-data").await?;
        Ok(data.filter(|data| {
            let is_for_others = ["#!", "#cloud-config", "Content-Type:", "MIME-Version:"]
                .iter()
                .any(|start| data.starts_with(start));
            !is_for_others && !data.trim().is_empty()
        }))
    }

    /// What is at `path`, if it is there.
    pub async fn get(&self, path: &str) -> Result<Option<String>, ImdsError> {
        match self.0.get(path).await {
            Ok(value) => Ok(Some(value.as_ref().to_owned())),
            Err(ClientError::ErrorResponse(response)) => {
                match response.response().status().as_u16() {
                    404 => Ok(None),
                    status => Err(ImdsError::Refused {
                        path: path.to_owned(),
                        status,
                    }),
                }
            }
            Err(error) => Err(ImdsError::Unreachable(words(&error))),
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
