//! What is at the path that the manifest names for the image: what it should be, or else the
//! name of what it is.

use manifest::{ImageKind, ImageReference};

use crate::error::ImageError;
use crate::node::Kind;
use crate::storage::Storage;
use crate::tree::Tree;
use crate::{docker, layout};

/// What an image layout has beside its index.
const LAYOUT: &str = "oci-layout";
/// What every archive of Docker before version 1.10 has.
const REPOSITORIES: &str = "repositories";
/// Folders by which a root file system is known.
const FOLDERS: [&str; 4] = ["bin", "etc", "lib", "usr"];

/// How an archive of images lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listing {
    Docker,
    Oci,
}

/// Refuses a folder where there should be a file and the other way round, and folders of
/// another kind. What cannot be read is left to who reads it.
pub(crate) fn check(reference: &ImageReference) -> Result<(), ImageError> {
    let path = &reference.path;
    let Ok(metadata) = std::fs::metadata(path) else {
        return Ok(());
    };
    let has = |name: &str| path.join(name).exists();
    let is_layout = has(layout::INDEX) && has(LAYOUT);
    let is_rootfs = FOLDERS.into_iter().any(has);
    let instead = match (reference.kind, metadata.is_dir()) {
        (ImageKind::Oci, false) => Some(("is a file", ImageKind::OciArchive)),
        (ImageKind::Rootfs, false) => Some(("is a file", ImageKind::RootfsArchive)),
        (ImageKind::RootfsArchive, true) if !is_layout => Some(("is a folder", ImageKind::Rootfs)),
        (ImageKind::Oci | ImageKind::OciArchive | ImageKind::DockerArchive, true)
            if !has(layout::INDEX) && is_rootfs =>
        {
            Some(("is the folder of a root file system", ImageKind::Rootfs))
        }
        (kind, true) if kind != ImageKind::Oci && (is_layout || !kind.is_rootfs()) => {
            Some(("is the folder of an OCI image layout", ImageKind::Oci))
        }
        _ => None,
    };
    if let Some((what, kind)) = instead {
        return Err(mistaken(reference, what, kind));
    }
    let is_copy = metadata.is_dir() && has(docker::MANIFEST) && has("version");
    if reference.kind == ImageKind::Oci && is_copy && !has(layout::INDEX) {
        let (path, copy) = (path.display(), reference.of_kind(ImageKind::Oci));
        return Err(ImageError::Invalid(format!(
            "it is a folder as skopeo's `dir:` makes it: copy it, with `skopeo copy dir:{path} oci:{path}-oci`, and write `{copy}-oci`"
        )));
    }
    Ok(())
}

/// Which list of an archive counts: the one that its kind names, where it has two.
pub(crate) fn listing(
    storage: &Storage,
    reference: &ImageReference,
) -> Result<Listing, ImageError> {
    match (storage.has(docker::MANIFEST), storage.has(layout::INDEX)) {
        (true, true) if reference.kind == ImageKind::OciArchive => Ok(Listing::Oci),
        (true, _) => Ok(Listing::Docker),
        (false, true) => Ok(Listing::Oci),
        (false, false) => {
            let Storage::Archive { tree, .. } = storage else {
                return Ok(Listing::Oci);
            };
            if FOLDERS
                .into_iter()
                .any(|name| tree.lookup(name.as_bytes()).is_some())
            {
                return Err(mistaken(
                    reference,
                    "is the archive of a root file system",
                    ImageKind::RootfsArchive,
                ));
            }
            if storage.has(REPOSITORIES) {
                return Err(ImageError::Invalid(
                    "it is of a Docker before version 1.10: `docker load` it, and save it again with today's"
                        .to_owned(),
                ));
            }
            Err(ImageError::Invalid(
                "manifest.json is missing in it, and index.json, too: it is no image, or not all of it; write it with `docker save`, `skopeo copy` or `buildah push`"
                    .to_owned(),
            ))
        }
    }
}

/// Refuses an archive of images where there should be one of a root file system.
pub(crate) fn check_rootfs(reference: &ImageReference, tree: &Tree) -> Result<(), ImageError> {
    let is_file = |name: &str| {
        let node = tree.get(name.as_bytes());
        node.is_some_and(|node| matches!(node.kind, Kind::File { .. }))
    };
    if FOLDERS
        .into_iter()
        .any(|name| tree.get(name.as_bytes()).is_some())
    {
        return Ok(());
    }
    if is_file(LAYOUT) && is_file(layout::INDEX) {
        let kind = ImageKind::OciArchive;
        return Err(mistaken(reference, "is an archive of images", kind));
    }
    if is_file(docker::MANIFEST) && is_file(REPOSITORIES) {
        let kind = ImageKind::DockerArchive;
        return Err(mistaken(reference, "is an archive of images", kind));
    }
    Ok(())
}

fn mistaken(reference: &ImageReference, what: &str, kind: ImageKind) -> ImageError {
    let entrypoint = if kind.is_rootfs() && !reference.kind.is_rootfs() {
        ", and the program in workload.entrypoint"
    } else {
        ""
    };
    ImageError::Invalid(format!(
        "it {what}: write `{}`{entrypoint}",
        reference.of_kind(kind)
    ))
}
