//! Every way in which an image cannot be fetched.

use std::io;
use std::path::{Path, PathBuf};

use aws_clients::{ConfigError, Error as AwsError};
use thiserror::Error;

use crate::MAX_BYTES;
use crate::digest::Sha256;
use crate::location::Location;
use crate::registry::{MEDIA_TYPE, ManifestError};

/// Why an image is not here.
#[derive(Debug, Error)]
pub enum FetchError {
    /// It is not where it should be.
    #[error(
        "the image {location} is not there: publish it (`enclavectl publish`), or correct the configuration"
    )]
    NotFound {
        /// Where it should be.
        location: String,
    },
    /// Nothing says which bytes are meant.
    #[error(
        "the image {location} has no SHA-256, without which an image from elsewhere is not fetched: name the file's, or a registry's manifest with @sha256:DIGEST"
    )]
    Unpinned {
        /// Where it is.
        location: String,
    },
    /// It may not be read.
    #[error("the image {location} may not be read: {reason}; allow {permission} to {whom}")]
    Denied {
        /// Where it is.
        location: String,
        /// The service's words.
        reason: String,
        /// What is missing.
        permission: &'static str,
        /// Who lacks it.
        whom: &'static str,
    },
    /// It could not be read to its end.
    #[error(
        "the image {location} could not be read: {reason}; the {bytes} bytes that are here are kept, and the next attempt continues there"
    )]
    Interrupted {
        /// Where it is.
        location: String,
        /// Why.
        reason: String,
        /// What is here.
        bytes: u64,
    },
    /// AWS cannot be asked at all.
    #[error("the image {location} cannot be read: {source}")]
    NoClient {
        /// Where it is.
        location: String,
        /// Why.
        source: ConfigError,
    },
    /// It has another size.
    #[error(
        "the image {location} has {found} bytes instead of {wanted}: it is another image than the configuration's; publish that one, or correct the configuration"
    )]
    Size {
        /// Where it is.
        location: String,
        /// Its size.
        found: u64,
        /// The configuration's.
        wanted: u64,
    },
    /// It has another digest.
    #[error(
        "the image {location} has the SHA-256 {found} instead of {wanted}: it is another image than the configuration's, or damaged; it was removed"
    )]
    Digest {
        /// Where it is.
        location: String,
        /// Its digest.
        found: Sha256,
        /// The configuration's.
        wanted: Sha256,
    },
    /// The registry has another image there.
    #[error(
        "the image {location} has the SHA-256 {found} instead of {wanted}: it is another image than the configuration's; push that one, or correct the configuration"
    )]
    OtherLayer {
        /// Where it is.
        location: String,
        /// The digest of the registry's image.
        found: Sha256,
        /// The configuration's.
        wanted: Sha256,
    },
    /// What the registry has there is no enclave image.
    #[error(
        "{location} is not an enclave image: {source}; push it with `oras push REGISTRY/REPOSITORY:TAG FILE.eif:{MEDIA_TYPE}`"
    )]
    Manifest {
        /// Where it is.
        location: String,
        /// What is wrong.
        source: ManifestError,
    },
    /// It is larger than any image.
    #[error("the image {location} has more than {MAX_BYTES} bytes, so it is not an image")]
    TooLarge {
        /// Where it is.
        location: String,
    },
    /// There is no room.
    #[error(
        "the image {location} needs {needed} bytes, but {} has room for {free}: free some, enlarge the volume, or name another folder with --image-dir", directory.display()
    )]
    DiskFull {
        /// Where it is.
        location: String,
        /// The bytes that are still to come.
        needed: u64,
        /// The bytes that are free.
        free: u64,
        /// The folder.
        directory: PathBuf,
    },
    /// The folder or a file in it cannot be used.
    #[error("{} cannot be used: {source}; name another folder with --image-dir", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file that is to be used where it is cannot be.
    #[error("the image {} cannot be read: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl FetchError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            path: path.to_owned(),
            source,
        }
    }

    /// Whether the image itself is wrong, and not this host or the way to it.
    pub fn is_about_the_image(&self) -> bool {
        matches!(
            self,
            Self::Size { .. }
                | Self::Digest { .. }
                | Self::OtherLayer { .. }
                | Self::Manifest { .. }
                | Self::TooLarge { .. }
        )
    }

    /// What S3 said, with what can be done about it.
    pub(crate) fn from_aws(location: &Location, error: &AwsError, bytes: u64) -> Self {
        let location = location.to_string();
        if error.is_denied() {
            return Self::Denied {
                location,
                reason: error.to_string(),
                permission: "s3:GetObject on it (and s3:ListBucket, without which S3 refuses what is not there)",
                whom: "the instance's role",
            };
        }
        if error.is_not_found() {
            return Self::NotFound { location };
        }
        Self::Interrupted {
            location,
            reason: error.to_string(),
            bytes,
        }
    }
}
