//! A container image: found, checked, its layers merged.

use std::collections::BTreeMap;

use eif::Architecture;
use manifest::{ImageKind, ImageReference};
use serde_json::{Map, Value};

use crate::container::{Config, Process};
use crate::digest::Digest;
use crate::error::{BuildError, ImageError};
use crate::parts::Parts;
use crate::platform::{ImagePlatform, Platform, Wanted};
use crate::source::{self, Listing};
use crate::spool::{Range, Spool};
use crate::step::Step;
use crate::storage::Storage;
use crate::stored::parse;
use crate::tree::{Tree, TreeError};
use crate::{docker, layer, layout, rootfs};

/// Most layers of an image.
const MAX_LAYERS: usize = 512;
const MIB: u64 = 1024 * 1024;

/// A container image with its layers merged.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) process: Process,
    /// All of the configuration, which has more fields than decide anything.
    pub(crate) fields: Map<String, Value>,
    /// The digest of the configuration, if there is one.
    pub(crate) config_digest: Option<Digest>,
    /// What should be known of it, a line each.
    pub(crate) notes: Vec<String>,
    pub(crate) tree: Tree,
    /// Where the files' contents are.
    pub(crate) spool: Spool,
}

/// Reads the image that the manifest names and merges its layers, which may
/// have `limit` bytes when decompressed.
pub(crate) fn load(
    reference: &ImageReference,
    architecture: Architecture,
    platform: Option<&Platform>,
    limit: u64,
    progress: &mut dyn FnMut(Step),
) -> Result<Image, BuildError> {
    let wanted = Wanted::new(architecture, platform).map_err(BuildError::Argument)?;
    let path = &reference.path;
    read(reference, wanted, limit, progress).map_err(|error| match error {
        ImageError::Invalid(reason) => BuildError::Image {
            image: path.clone(),
            reason,
        },
        ImageError::Full(largest) => BuildError::Image {
            image: path.clone(),
            reason: format!(
                "its {} have more than {} MiB when decompressed, four times enclave.memory_mib{}: make the image smaller, or raise memory_mib",
                if reference.kind.is_rootfs() { "files" } else { "layers" },
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

fn read(
    reference: &ImageReference,
    wanted: Wanted,
    limit: u64,
    progress: &mut dyn FnMut(Step),
) -> Result<Image, ImageError> {
    let path = &reference.path;
    source::check(reference)?;
    let parts = match reference.kind {
        ImageKind::Rootfs | ImageKind::RootfsArchive => return read_rootfs(reference, limit),
        ImageKind::Oci => layout::find(&Storage::folder(path), reference, wanted),
        ImageKind::OciArchive | ImageKind::DockerArchive => {
            let storage = Storage::archive(path, limit)?;
            match source::listing(&storage, reference)? {
                Listing::Docker => docker::find(&storage, reference, wanted),
                Listing::Oci => layout::find(&storage, reference, wanted),
            }
        }
    }?;
    merge(&parts, wanted, limit, progress)
}

/// A root file system has no configuration: the manifest says it all.
fn read_rootfs(reference: &ImageReference, limit: u64) -> Result<Image, ImageError> {
    let path = &reference.path;
    let mut tree = Tree::default();
    let mut spool = Spool::new(limit).map_err(ImageError::Temporary)?;
    let note = if reference.kind == ImageKind::Rootfs {
        rootfs::read_folder(path, &mut spool, &mut tree)?
    } else {
        rootfs::read_archive(path, &mut spool, &mut tree)?;
        source::check_rootfs(reference, &tree)?;
        None
    };
    Ok(Image {
        process: Process::default(),
        fields: Map::new(),
        config_digest: None,
        notes: note.into_iter().collect(),
        tree,
        spool,
    })
}

fn merge(
    parts: &Parts,
    wanted: Wanted,
    limit: u64,
    progress: &mut dyn FnMut(Step),
) -> Result<Image, ImageError> {
    let config: Config = parse(&parts.config, "its configuration")?;
    let platform = ImagePlatform::of(&config);
    if !wanted.fits(&platform) {
        return Err(ImageError::Invalid(format!(
            "it is for {platform}, but the kernel is for {wanted}: {}",
            wanted.advice()
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
            bytes: stored.blob.range.size,
        });
        let file = stored.blob.open()?;
        let bytes = Range::new(&file, stored.blob.range);
        layer::unpack(bytes, stored.digest.as_ref(), diff_id, &mut spool)
            .and_then(|archive| layer::apply(&spool, archive, &mut tree))
            .map_err(|error| {
                error.about(
                    &format!("layer {number} ({})", stored.name),
                    &stored.blob.path,
                )
            })?;
    }
    let process = config.config.unwrap_or_default();
    make_directories(&process, &mut tree)?;
    Ok(Image {
        process,
        fields: parse(&parts.config, "its configuration")?,
        config_digest: Some(Digest::of(&parts.config)),
        notes: wanted
            .note([&parts.platform, &platform])
            .into_iter()
            .collect(),
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
