//! Gets enclave images to this host: from S3, an OCI registry, over HTTPS, or from a
//! file that is here already.
//!
//! An image is known by the SHA-256 of its file. It is read into
//! `DIGEST.partial`, hashed as it arrives, and becomes `DIGEST.eif` only when size
//! and digest are right: what has that name is whole. A read that was cut short,
//! by whatever, goes on where it stopped. Only one process fetches an image at a
//! time; others wait for it.

#![forbid(unsafe_code)]

mod cache;
mod digest;
mod error;
mod fetch;
mod http;
mod location;
mod oci;
mod partial;
mod registry;
mod s3;
mod web;

pub use cache::{Cache, IMAGE_DIR_HELP};
pub use digest::Sha256;
pub use error::FetchError;
pub use fetch::{fetch, find};
pub use location::{ImageConfig, Location};
pub use registry::{MAX_MANIFEST, MEDIA_TYPE, ManifestError, Reference};

/// Largest image, in bytes: more than an enclave's memory can hold.
const MAX_BYTES: u64 = 64 << 30;

/// Told of progress: the bytes that are here, and how many there will be.
pub type Progress<'a> = &'a (dyn Fn(u64, Option<u64>) + Sync);

/// What fuzz targets look at besides: what registries say, and Docker's configuration.
#[doc(hidden)]
pub mod internal {
    pub use crate::registry::{Challenge, Layer, docker_key};
}
