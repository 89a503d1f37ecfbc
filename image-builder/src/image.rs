//! A container image: found, checked, its layers merged.

use std::collections::BTreeMap;
use std::path::Path;

use eif::Architecture;
use manifest::ImageReference;
use serde_json::{Map, Value};

use crate::container::{Config, Process};
use crate::digest::Digest;
use crate::error::{BuildError, ImageError};
use crate::spool::{Range, Spool};
use crate::step::Step;
use crate::stored::{Parts, open, parse};
use crate::tree::{Tree, TreeError};
use crate::{docker, layer, layout};

/// Most layers of an image.
const MAX_LAYERS: usize = 512;
const MIB: u64 = 1024 * 1024;

/// A container image with its layers merged.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) process: Process,
    /// All of the configuration, which has more fields than decide anything.
    pub(crate) fields: Map<String, Value>,
    /// The digest of the configuration.
    pub(crate) config_digest: Digest,
    pub(crate) tree: Tree,
    /// Where the files' contents are.
    pub(crate) spool: Spool,
}

/// What OCI calls the processor.
pub(crate) const fn platform(architecture: Architecture) -> &'static str {
    match architecture {
        Architecture::X86_64 => "amd64",
        Architecture::Aarch64 => "arm64",
    }
}

/// The folder or file that an image is in.
pub(crate) fn path(reference: &ImageReference) -> &Path {
    match reference {
        ImageReference::OciLayout { path, .. } | ImageReference::DockerArchive { path, .. } => path,
    }
}

/// Reads the image that the manifest names and merges its layers, which may
/// have `limit` bytes when decompressed.
pub(crate) fn load(
    reference: &ImageReference,
    architecture: Architecture,
    limit: u64,
    progress: &mut dyn FnMut(Step),
) -> Result<Image, BuildError> {
    let platform = platform(architecture);
    let parts = match reference {
        ImageReference::OciLayout { path, tag } => layout::find(path, tag.as_deref(), platform),
        ImageReference::DockerArchive { path, tag } => docker::find(path, tag.as_deref()),
    };
    let path = path(reference);
    parts
        .and_then(|parts| merge(&parts, platform, limit, progress))
        .map_err(|error| match error {
            ImageError::Invalid(reason) => BuildError::Image {
                image: path.to_owned(),
                reason,
            },
            ImageError::Full(largest) => BuildError::Image {
                image: path.to_owned(),
                reason: format!(
                    "its layers have more than {} MiB when decompressed, four times enclave.memory_mib{}: make the image smaller, or raise memory_mib",
                    limit / MIB,
                    largest.map_or_else(String::new, |file| format!("; the largest file is {file}"))
                ),
            },
            ImageError::Read { path: file, source } => {
                BuildError::read(file.as_deref().unwrap_or(path), "check `image` in the manifest")(source)
            }
            ImageError::Temporary(source) => BuildError::temporary(source),
        })
}

fn merge(
    parts: &Parts,
    platform: &str,
    limit: u64,
    progress: &mut dyn FnMut(Step),
) -> Result<Image, ImageError> {
    let config: Config = parse(&parts.config, "its configuration")?;
    if config.architecture != platform || config.os != "linux" {
        return Err(ImageError::Invalid(format!(
            "it is for {}/{}, but the kernel is for linux/{platform}: build the image with --platform linux/{platform}, or give another kernel",
            config.os, config.architecture
        )));
    }
    let diff_ids = config.rootfs.diff_ids.unwrap_or_default();
    let count = parts.layers.len();
    if count != diff_ids.len() || count > MAX_LAYERS {
        return Err(ImageError::Invalid(format!(
            "it has {count} layers and {} diff ids: they must be as many, and at most {MAX_LAYERS}",
            diff_ids.len()
        )));
    }
    let mut tree = Tree::default();
    let mut spool = Spool::new(limit).map_err(ImageError::Temporary)?;
    for (number, (stored, diff_id)) in (1..).zip(parts.layers.iter().zip(&diff_ids)) {
        progress(Step::Layer {
            number,
            count,
            bytes: stored.range.size,
        });
        let file = open(&stored.file)?;
        let bytes = Range::new(&file, stored.range);
        layer::unpack(bytes, stored.digest.as_ref(), diff_id, &mut spool)
            .and_then(|archive| layer::apply(&spool, archive, &mut tree))
            .map_err(|error| {
                error.about(&format!("layer {number} ({})", stored.name), &stored.file)
            })?;
    }
    let process = config.config.unwrap_or_default();
    make_directories(&process, &mut tree)?;
    Ok(Image {
        process,
        fields: parse(&parts.config, "its configuration")?,
        config_digest: Digest::of(&parts.config),
        tree,
        spool,
    })
}

/// As container runtimes do when they start a container: the directories of its volumes, and
/// the one that it starts in, are made where the layers have none.
fn make_directories(process: &Process, tree: &mut Tree) -> Result<(), ImageError> {
    for volume in process.volumes.iter().flat_map(BTreeMap::keys) {
        if !volume.starts_with('/') {
            return Err(ImageError::Invalid(format!(
                "its volume `{volume}` is not an absolute path: write VOLUME with one that begins with `/`"
            )));
        }
        tree.ensure_directory(volume.as_bytes()).map_err(|error| {
            ImageError::Invalid(format!(
                "its volume {volume} cannot be a directory: {error}; remove what is in its place, or the VOLUME"
            ))
        })?;
    }
    match &process.working_dir {
        // Whether it can be used is checked where it is known which one is.
        Some(folder) if folder.starts_with('/') => match tree.ensure_directory(folder.as_bytes()) {
            Err(error @ (TreeError::Entries | TreeError::Names)) => {
                Err(ImageError::Invalid(error.to_string()))
            }
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}
