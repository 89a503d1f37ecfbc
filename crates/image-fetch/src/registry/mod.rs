//! Images in OCI registries: what an address says, what a manifest says, and how a
//! registry is asked.
//!
//! An enclave image is an artifact with one layer of the media type
//! [`MEDIA_TYPE`], the EIF as it is. The crate's front page has the specifications.

mod challenge;
pub(crate) mod client;
mod keys;
mod manifest;
mod reference;

pub use challenge::Challenge;
pub use keys::docker_key;
pub use manifest::{Layer, MAX_MANIFEST, ManifestError};
pub use reference::Reference;

/// The media type of an enclave image.
pub const MEDIA_TYPE: &str = "application/vnd.aws.nitro-enclaves.eif";
