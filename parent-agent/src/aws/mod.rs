//! What the agent asks AWS: parameters, images, tokens for registries, functions, and
//! the metadata of its instance.
//!
//! An agent that is built without the feature `aws` has no clients: what needs one is
//! refused before anything starts, with [`ConfigError`].

#[cfg(not(feature = "aws"))]
mod absent;
#[cfg(feature = "aws")]
mod clients;
#[cfg(feature = "aws")]
mod metadata;

#[cfg(not(feature = "aws"))]
pub use absent::{Client, ConfigError, Error, InvokeError};
#[cfg(not(feature = "aws"))]
pub(crate) use absent::{Metadata, region};
#[cfg(feature = "aws")]
pub(crate) use clients::region;
#[cfg(feature = "aws")]
pub use clients::{Client, ConfigError, Error, InvokeError};
#[cfg(feature = "aws")]
pub(crate) use metadata::Metadata;

use thiserror::Error;

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
