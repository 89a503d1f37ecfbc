//! Why an image could not be built.

use std::io;
use std::path::{Path, PathBuf};

use manifest::ManifestError;
use thiserror::Error;

use crate::large_file::LargeFile;

/// Why an image could not be built.
#[derive(Debug, Error)]
pub enum BuildError {
    /// The manifest was refused.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// An argument or a variable of the environment was refused.
    #[error("{0}")]
    Argument(String),
    /// A file cannot be read.
    #[error("cannot read {}: {source}; {advice}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
        /// What to do.
        advice: &'static str,
    },
    /// A file cannot be written.
    #[error("cannot write {}: {source}; {advice}", path.display())]
    Write {
        /// The file, or the folder of temporary files.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
        /// What to do.
        advice: &'static str,
    },
    /// The kernel, the init, the key or the enclave image is not what it should be.
    #[error("{}: {reason}", path.display())]
    Input {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to give instead.
        reason: String,
    },
    /// A file of measurements cannot be used; the error names it.
    #[error(transparent)]
    Measurements(attestation::PolicyError),
    /// The container image is not what it should be.
    #[error("image {}: {reason}", image.display())]
    Image {
        /// The image's folder or file.
        image: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The enclave image could not be put together.
    #[error("the enclave image cannot be built: {0}")]
    Eif(eif::Error),
}

impl BuildError {
    pub(crate) fn read(path: &Path, advice: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Read {
            path,
            source,
            advice,
        }
    }

    /// Why an enclave image cannot be read.
    pub(crate) fn enclave_image(path: &Path) -> impl FnOnce(eif::Error) -> Self {
        let path = path.to_owned();
        move |error| match error {
            eif::Error::Read { source, .. } if source.raw_os_error().is_some() => {
                Self::read(&path, "try again, or copy it to another disk")(source)
            }
            error => Self::Input {
                path,
                reason: error.to_string(),
            },
        }
    }

    pub(crate) fn write(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Write {
            path,
            source,
            advice: "name a file in a folder that exists, that you may write to and that has space",
        }
    }

    pub(crate) fn temporary(source: io::Error) -> Self {
        Self::Write {
            path: std::env::temp_dir(),
            source,
            advice: "temporary files go there: free some space, or set TMPDIR to another folder",
        }
    }

    /// The documented exit code: 1 for a file that cannot be read or written, 2
    /// for the manifest or the command line, 3 for an input that cannot be used.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Read { .. }
            | Self::Write { .. }
            | Self::Eif(_)
            | Self::Manifest(ManifestError::Read { .. }) => 1,
            Self::Manifest(_) | Self::Argument(_) => 2,
            Self::Input { .. } | Self::Measurements(_) | Self::Image { .. } => 3,
        }
    }
}

/// What is wrong with a container image, before it is known which.
#[derive(Debug)]
pub(crate) enum ImageError {
    /// It is not what it should be.
    Invalid(String),
    /// It cannot be read; of the image's own path if none is given.
    Read {
        path: Option<PathBuf>,
        source: io::Error,
    },
    /// A temporary file cannot be written or read.
    Temporary(io::Error),
    /// It has more bytes than are unpacked; the largest file of the layer that is too much.
    Full(Option<LargeFile>),
}

impl ImageError {
    pub(crate) fn read(source: io::Error) -> Self {
        Self::Read { path: None, source }
    }

    /// Says which part of the image it is, and in which file.
    pub(crate) fn about(self, part: &str, file: &Path) -> Self {
        match self {
            Self::Invalid(reason) => Self::Invalid(format!("{part}: {reason}")),
            Self::Read { path, source } => Self::Read {
                path: path.or_else(|| Some(file.to_owned())),
                source,
            },
            Self::Temporary(_) | Self::Full(_) => self,
        }
    }
}
