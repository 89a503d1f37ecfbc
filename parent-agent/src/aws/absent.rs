//! Nothing, in the place of clients: an agent without the feature `aws`.

#![expect(
    clippy::unused_async,
    reason = "what stands here otherwise is waited for"
)]

use std::convert::Infallible;

use aws_endpoint::Object;
use bytes::Bytes;
use thiserror::Error;

use super::{Head, MetadataError};

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
    pub(crate) fn is_denied(&self) -> bool {
        match *self {}
    }

    pub(crate) fn is_not_found(&self) -> bool {
        match *self {}
    }

    pub(crate) fn is_transient(&self) -> bool {
        match *self {}
    }
}

/// A client, which there is none of.
#[derive(Debug, Clone)]
pub struct Client(Infallible);

impl Client {
    pub(crate) async fn new(_: Option<&str>) -> Result<Self, ConfigError> {
        Err(ConfigError)
    }

    pub(crate) async fn check_credentials(&self) -> Result<(), String> {
        match self.0 {}
    }

    pub(crate) fn region(&self) -> &str {
        match self.0 {}
    }

    pub(crate) async fn parameter(&self, _: &str) -> Result<String, Error> {
        match self.0 {}
    }

    pub(crate) async fn registry_token(&self) -> Result<String, Error> {
        match self.0 {}
    }

    pub(crate) async fn head(&self, _: &Object) -> Result<Head, Error> {
        match self.0 {}
    }

    pub(crate) async fn part(
        &self,
        _: &Object,
        _: u64,
        _: u64,
        _: Option<&str>,
    ) -> Result<Vec<u8>, Error> {
        match self.0 {}
    }

    pub(crate) async fn invoke(&self, _: &str, _: Bytes) -> Result<Bytes, InvokeError> {
        match self.0 {}
    }
}

/// The instance's metadata service, which is not asked.
#[derive(Debug)]
pub(crate) struct Metadata;

impl Metadata {
    pub(crate) fn new() -> Self {
        Self
    }

    pub(crate) async fn get(&self, _: &str) -> Result<Option<String>, MetadataError> {
        Err(ConfigError.into())
    }
}

pub(crate) async fn region() -> Option<String> {
    None
}
