//! The instance metadata service, version 2 only.

use aws_clients::{ConfigError, Metadata, MetadataError};
use thiserror::Error;

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
    /// It cannot be asked.
    #[error("the instance's metadata cannot be read: {0}; name a file with --config")]
    NoClient(#[from] ConfigError),
    /// There is no such tag.
    #[error(
        "the instance has no tag {tag}, or its tags are not in its metadata: set it, and InstanceMetadataTags=enabled", tag = super::source::TAG
    )]
    NoTag,
    /// There is no user data that is a configuration.
    #[error("the instance has no user data, or it is a script and not a configuration")]
    NoUserData,
}

/// The service of the instance that this process runs on.
#[derive(Debug)]
pub struct Imds(Metadata);

impl Imds {
    /// The service; it is not asked yet.
    #[expect(
        clippy::new_without_default,
        reason = "it stands for a service, not for nothing"
    )]
    pub fn new() -> Self {
        Self(Metadata::from_environment())
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
        self.0.get(path).await.map_err(|error| match error {
            MetadataError::Unreachable(reason) => ImdsError::Unreachable(reason),
            MetadataError::Refused(status) => ImdsError::Refused {
                path: path.to_owned(),
                status,
            },
            MetadataError::NoClient(error) => error.into(),
        })
    }
}
