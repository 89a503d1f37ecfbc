//! What a program on an instance asks AWS: parameters, images, tokens for registries,
//! functions, and the metadata of its instance.
//!
//! Region, credentials and endpoints come from environment, profile or instance, as
//! [AWS's SDKs](https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html)
//! find them. Host names are resolved by `name-resolver`, which works in a static binary.
//!
//! | limit | value |
//! |---|---|
//! | time to find the region | 10 s |
//! | one invocation of a function | 20 s |
//! | the metadata service | 1 s to connect, 2 s to read, 3 attempts |
//! | everything else | those of `aws-request` |
//!
//! Without the feature `aws` there are no clients, and no crates of AWS's are compiled for
//! them: [`Client::new`] ends with [`ConfigError`], so what needs a client is refused
//! before anything starts. Credentials are those of the environment alone.

#![forbid(unsafe_code)]

#[cfg(not(feature = "aws"))]
mod absent;
#[cfg(feature = "aws")]
mod clients;
#[cfg(feature = "aws")]
mod metadata;

#[cfg(not(feature = "aws"))]
pub use absent::{Client, ConfigError, CredentialsSource, Error, InvokeError, Metadata, region};
#[cfg(feature = "aws")]
pub use clients::{Client, ConfigError, CredentialsSource, Error, InvokeError, region};
#[cfg(feature = "aws")]
pub use metadata::Metadata;

use std::time::SystemTime;

use thiserror::Error;

/// What requests to AWS are signed with. Without `Debug`: it must not be printed.
#[expect(missing_debug_implementations, reason = "it must not be printed")]
pub struct Credentials {
    /// Whose secret it is.
    pub access_key_id: String,
    /// The secret.
    pub secret_access_key: String,
    /// Sent with each request, unless the keys are somebody's own.
    pub session_token: Option<String>,
    /// When they expire, if they do.
    pub expires: Option<SystemTime>,
}

/// What is known of an object in S3 without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Its length in bytes.
    pub size: u64,
    /// Its entity tag, with the quotes.
    pub etag: Option<String>,
}

/// Why the instance's metadata are not known.
#[derive(Debug, Error)]
pub enum MetadataError {
    /// The service does not answer.
    #[error("{0}")]
    Unreachable(String),
    /// It answers with this HTTP status.
    #[error("status {0}")]
    Refused(u16),
    /// It cannot be asked.
    #[error(transparent)]
    NoClient(#[from] ConfigError),
}
