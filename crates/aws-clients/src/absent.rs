//! Nothing, in the place of clients: a build without the feature `aws`.

#![expect(
    clippy::unused_async,
    missing_docs,
    reason = "what stands here otherwise is waited for, and documented"
)]

use std::convert::Infallible;

use aws_endpoint::Object;
use bytes::Bytes;
use thiserror::Error;

use crate::{Credentials, Head, MetadataError};

/// Why there is no client.
#[derive(Debug, Error)]
#[error(
    "this build of the agent has no AWS clients: use a released one, or build it with the feature `aws`, which is on by default"
)]
pub struct ConfigError;

/// Why a call has failed: none is made.
#[derive(Debug, Error)]
pub enum Error {}

/// Why an invocation has failed: none is made.
#[derive(Debug, Error)]
pub enum InvokeError {
    /// The service could not be asked.
    #[error(transparent)]
    Service(#[from] Error),
}

impl Error {
    pub fn is_denied(&self) -> bool {
        match *self {}
    }

    pub fn is_not_found(&self) -> bool {
        match *self {}
    }

    pub fn is_transient(&self) -> bool {
        match *self {}
    }
}

/// A client, which there is none of.
#[derive(Debug, Clone)]
pub struct Client(Infallible);

impl Client {
    pub async fn new(_: Option<&str>) -> Result<Self, ConfigError> {
        Err(ConfigError)
    }

    pub async fn check_credentials(&self) -> Result<(), String> {
        match self.0 {}
    }

    pub fn region(&self) -> &str {
        match self.0 {}
    }

    pub async fn parameter(&self, _: &str) -> Result<String, Error> {
        match self.0 {}
    }

    pub async fn registry_token(&self) -> Result<String, Error> {
        match self.0 {}
    }

    pub async fn head(&self, _: &Object) -> Result<Head, Error> {
        match self.0 {}
    }

    pub async fn part(
        &self,
        _: &Object,
        _: u64,
        _: u64,
        _: Option<&str>,
    ) -> Result<Vec<u8>, Error> {
        match self.0 {}
    }

    pub async fn invoke(&self, _: &str, _: Bytes) -> Result<Bytes, InvokeError> {
        match self.0 {}
    }
}

/// A source of credentials: the environment alone.
#[derive(Debug)]
pub struct CredentialsSource {
    region: Option<String>,
}

impl CredentialsSource {
    pub async fn new(region: Option<&str>) -> Result<Self, ConfigError> {
        let of_environment = || {
            ["AWS_REGION", "AWS_DEFAULT_REGION"]
                .into_iter()
                .find_map(variable)
        };
        let region = region.map(str::to_owned).or_else(of_environment);
        Ok(Self { region })
    }

    pub fn region(&self) -> Option<&str> {
        self.region.as_deref()
    }

    pub async fn get(&self) -> Result<Credentials, String> {
        let found = || {
            Some(Credentials {
                access_key_id: variable("AWS_ACCESS_KEY_ID")?,
                secret_access_key: variable("AWS_SECRET_ACCESS_KEY")?,
                session_token: variable("AWS_SESSION_TOKEN"),
                expires: None,
            })
        };
        found().ok_or_else(|| {
            "the environment has no AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and this build of the agent, without AWS clients, looks nowhere else".to_owned()
        })
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The instance's metadata service, which is not asked.
#[derive(Debug)]
pub struct Metadata;

impl Metadata {
    pub fn from_environment() -> Self {
        Self
    }

    pub async fn get(&self, _: &str) -> Result<Option<String>, MetadataError> {
        Err(ConfigError.into())
    }
}

pub async fn region() -> Option<String> {
    None
}
