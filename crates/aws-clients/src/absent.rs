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

/// A source of credentials, which there is none of.
#[derive(Debug)]
pub struct CredentialsSource(Infallible);

impl CredentialsSource {
    pub async fn new(_: Option<&str>) -> Result<Self, ConfigError> {
        Err(ConfigError)
    }

    pub fn region(&self) -> Option<&str> {
        match self.0 {}
    }

    pub async fn get(&self) -> Result<Credentials, String> {
        match self.0 {}
    }
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
