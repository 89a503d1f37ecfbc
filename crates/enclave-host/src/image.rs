//! The enclave image: checked in full before anything is started.

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use eif::{Eif, Section, SectionKind};
use manifest::{ConfigError, HostConfig, MemoryMib, needed_mib};
use measurements::{Measurements, Pcr};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Why an image cannot be run.
#[derive(Debug, Error)]
pub enum ImageError {
    /// The file cannot be opened.
    #[error("the image {} cannot be opened: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is no sound EIF.
    #[error("the image {} cannot be used: {source}", path.display())]
    Eif {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: eif::Error,
    },
    /// The image says nothing to the host.
    #[error(
        "the image {} carries no host configuration, so it was not built by image-builder: build it with `image-builder build`", .0.display()
    )]
    NoHostConfig(PathBuf),
    /// What the image says to the host cannot be used.
    #[error("the image {} cannot be used: {source}", path.display())]
    HostConfig {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: ConfigError,
    },
    /// The image's name goes into command lines as text.
    #[error("the image's path {} is not UTF-8: move or rename it", .0.display())]
    Path(PathBuf),
}

/// That an enclave would not start for want of memory.
#[derive(Debug, PartialEq, Eq, Error)]
#[error(
    "the enclave does not start with {memory} MiB of memory: its image has {image_mib} MiB, and its files take {unpacked} of memory when they are unpacked, both at once; give it at least {needed} MiB with --memory-mib, `memory_mib` of the configuration or enclave.memory_mib of the manifest, and more for what the workload needs"
)]
pub struct LowMemory {
    memory: MemoryMib,
    image_mib: u64,
    /// For people.
    unpacked: String,
    needed: u64,
}

/// Measured registers by number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pcrs(pub BTreeMap<u8, Pcr>);

impl From<Measurements> for Pcrs {
    fn from(measurements: Measurements) -> Self {
        let mut pcrs = BTreeMap::from([
            (0, measurements.pcr0),
            (1, measurements.pcr1),
            (2, measurements.pcr2),
        ]);
        pcrs.extend(measurements.pcr8.map(|pcr8| (8, pcr8)));
        Self(pcrs)
    }
}

/// An image that has been found sound.
#[derive(Debug)]
pub struct Image {
    path: PathBuf,
    /// Bytes of the file.
    size: u64,
    file: FileId,
    eif: Eif<File>,
    host: HostConfig,
}

/// What tells one file from another that has taken its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileId {
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

impl FileId {
    pub(crate) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }
}

impl Image {
    /// Reads the whole image, and checks and measures it.
    pub fn open(path: &Path) -> Result<Self, ImageError> {
        let opened = |source| ImageError::Open {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(opened)?;
        let metadata = file.metadata().map_err(opened)?;
        let absolute = path.canonicalize().map_err(opened)?;
        if absolute.to_str().is_none() {
            return Err(ImageError::Path(absolute));
        }
        let eif = Eif::open(file).map_err(|source| ImageError::Eif {
            path: path.to_owned(),
            source,
        })?;
        let custom = eif.metadata().map(|metadata| &metadata.custom_metadata);
        let host = custom
            .and_then(|metadata| HostConfig::from_metadata(metadata.text()).transpose())
            .ok_or_else(|| ImageError::NoHostConfig(path.to_owned()))?
            .map_err(|source| ImageError::HostConfig {
                path: path.to_owned(),
                source,
            })?;
        Ok(Self {
            path: absolute,
            size: metadata.len(),
            file: FileId::of(&metadata),
            eif,
            host,
        })
    }

    /// The image's absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What an enclave started from the image reports of itself.
    pub fn measurements(&self) -> Measurements {
        self.eif.measurements()
    }

    /// What the image asks of the host.
    pub fn host(&self) -> &HostConfig {
        &self.host
    }

    /// The certificate that it is signed with, if it is signed.
    pub fn certificate(&self) -> Option<&eif::Certificate> {
        self.eif.signature().map(eif::Signature::certificate)
    }

    /// The file's size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    pub(crate) fn file(&self) -> FileId {
        self.file
    }

    /// Where the ramdisks lie, in the order in which they are unpacked.
    pub fn ramdisks(&self) -> Vec<Section> {
        let sections = self.eif.sections().iter().copied();
        sections
            .filter(|section| section.kind == SectionKind::Ramdisk)
            .collect()
    }
}

/// Whether an image of this size, which says so of itself, starts with this memory.
pub fn check_memory(size: u64, host: &HostConfig, memory: MemoryMib) -> Result<(), LowMemory> {
    let needed = needed_mib(size, host.unpacked_bytes);
    if needed <= u64::from(memory.get()) {
        return Ok(());
    }
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    let unpacked = match host.unpacked_bytes {
        // Its builder did not say.
        0 => "more".to_owned(),
        bytes => format!("{} MiB", mib(bytes)),
    };
    Err(LowMemory {
        memory,
        image_mib: mib(size),
        unpacked,
        needed,
    })
}

/// The runtime configuration in a file.
pub fn read_runtime_config(path: &Path) -> Result<Vec<u8>, RuntimeConfigError> {
    let failed = |source| RuntimeConfigError::Read {
        path: path.to_owned(),
        source,
    };
    let limit = link::control::MAX_RUNTIME_CONFIG;
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(limit as u64 + 1).read_to_end(&mut bytes))
        .map_err(failed)?;
    if bytes.len() > limit {
        return Err(RuntimeConfigError::TooLarge(path.to_owned()));
    }
    Ok(bytes)
}

/// Why a runtime configuration cannot be used.
#[derive(Debug, Error)]
pub enum RuntimeConfigError {
    /// The file cannot be read.
    #[error("the runtime configuration {} cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is larger than a message can carry.
    #[error(
        "the runtime configuration {} has more than {} bytes, which is the most that an enclave takes: shorten it", .0.display(), link::control::MAX_RUNTIME_CONFIG
    )]
    TooLarge(PathBuf),
}
