//! Gets enclave images to this host: from S3, an OCI registry, over HTTPS, or from a
//! file that is here already.
//!
//! ```no_run
//! use image_fetch::{Cache, FetchError, ImageConfig, fetch};
//!
//! # async fn example() -> Result<(), FetchError> {
//! let image = ImageConfig {
//!     location: "s3://images/payments.eif".parse().expect("an object"),
//!     sha256: "0123456789abcdef".repeat(4).parse().ok(),
//!     size: None,
//!     pcr8: None,
//! };
//! let path = fetch(&image, None, &Cache::new(None), &|bytes, total| {
//!     eprintln!("{bytes} of {total:?} bytes");
//! })
//! .await?;
//! # Ok(())
//! # }
//! ```
//!
//! An image is known by the SHA-256 of its file. It is read into
//! `DIGEST.partial`, hashed as it arrives, and becomes `DIGEST.eif` only when size
//! and digest are right: what has that name is whole. A read that was cut short,
//! by whatever, goes on where it stopped. Only one process fetches an image at a
//! time; others wait for it. Nothing here measures an image or checks its signature:
//! whoever runs it does.
//!
//! | limit | value |
//! |---|---|
//! | bytes of an image | 64 GiB |
//! | bytes of the folder's images | 8 GiB; those that were not used for longest go |
//! | age of parts of images, and of manifests, that nobody asked for again | 7 days |
//! | attempts in a row that bring no byte | 5, with random pauses around 1, 2, 4 and 8 s |
//! | parts of an object in S3 at a time | 4 of 4 MiB, held in memory |
//! | time to connect | 5 s |
//! | silence before an answer, and within it | 30 s |
//! | redirects | of a registry 5; of a web server none, since the configuration names the place |
//! | bytes of a manifest | 256 KiB |
//! | bytes of an answer with a token | 64 KiB |
//! | bytes of Docker's configuration | 256 KiB |
//!
//! Only `https` is spoken, but to this host itself. A registry's name and password come
//! from Docker's configuration (`auths` in `$DOCKER_CONFIG/config.json`,
//! `~/.docker/config.json` or `/etc/enclaves/docker.json`), those of Elastic Container
//! Registry from AWS; only the registry and its server for tokens see them.
//!
//! Every failure is a [`FetchError`], in one line that says what can be done; its words
//! are those of `parent-agent`, with the names of its options.
//! [`FetchError::is_about_the_image`] tells an image that is not the wanted one from a
//! host, or a way, that can be mended.
//!
//! Without the feature `aws`, images in S3 and the keys of Elastic Container Registry are
//! refused with [`FetchError::NoClient`] and [`FetchError::Denied`].
//!
//! # Sources
//!
//! - [OCI distribution specification 1.1](https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md#pull):
//!   "Pulling manifests" and "Pulling blobs"; the grammar of repositories, tags and digests.
//! - [OCI image specification 1.1](https://github.com/opencontainers/image-spec/blob/v1.1.0/manifest.md):
//!   "Image Manifest", and "Guidelines for Artifact Usage", whose one layer is the image.
//! - [Token authentication](https://distribution.github.io/distribution/spec/auth/token/)
//!   of the Docker registry, which others follow, and RFC 9110, section 11.6.1.
//! - RFC 9110, section 14: ranges, with which a read goes on.
//! - [GetObject](https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html) of
//!   S3, also for what it answers where `s3:ListBucket` is missing.
//! - [Private registry authentication](https://docs.aws.amazon.com/AmazonECR/latest/userguide/registry_auth.html)
//!   of Elastic Container Registry.

#![forbid(unsafe_code)]

mod attempts;
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

/// Told of progress: the bytes that are here, and how many there will be, if the other
/// side has said so.
pub type Progress<'a> = &'a (dyn Fn(u64, Option<u64>) + Sync);

/// What fuzz targets look at besides: what registries say, and Docker's configuration.
#[doc(hidden)]
pub mod internal {
    pub use crate::registry::{Challenge, Layer, docker_key};
}
