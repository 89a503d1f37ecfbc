//! Why an image could not be built.

use std::io;
use std::path::{Path, PathBuf};

use manifest::ManifestError;
use thiserror::Error;

/// Why an image could not be built.
#[derive(Debug, Error)]
pub enum BuildError {
    /// The manifest was refused.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// The kernel or the init is not what it should be.
    #[error("{}: {reason}", path.display())]
    Input {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to give instead.
        reason: String,
    },
    /// The container image is not what it should be.
    #[error("image {}: {reason}", image.display())]
    Image {
        /// The image's folder or file.
        image: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The enclave image could not be written.
    #[error("the enclave image cannot be written: {0}")]
    Eif(#[from] eif::Error),
}

impl BuildError {
    pub(crate) fn file(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { path, source }
    }

    /// The documented exit code: 2 for the manifest or the command line, 3 for
    /// an input that cannot be used, 1 for everything else.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Manifest(_) => 2,
            Self::Input { .. } | Self::Image { .. } => 3,
            Self::File { .. } | Self::Eif(_) => 1,
        }
    }
}
