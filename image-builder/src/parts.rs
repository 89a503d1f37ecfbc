//! A container image's parts, found and still unread, and the one that is meant of several.

use std::collections::BTreeSet;

use manifest::ImageReference;

use crate::container::Config;
use crate::digest::Digest;
use crate::error::ImageError;
use crate::list::list;
use crate::platform::{ImagePlatform, Wanted};
use crate::storage::Blob;

/// Most tags, digests or platforms that an error names.
const MOST_NAMED: usize = 8;

/// An image's parts.
#[derive(Debug)]
pub(crate) struct Parts {
    /// What it is for, as it was found.
    pub(crate) platform: ImagePlatform,
    /// The configuration's bytes.
    pub(crate) config: Vec<u8>,
    pub(crate) layers: Vec<StoredLayer>,
}

/// A layer as it is stored.
#[derive(Debug)]
pub(crate) struct StoredLayer {
    pub(crate) name: String,
    /// The digest of the stored bytes, where the image says it.
    pub(crate) digest: Option<Digest>,
    pub(crate) blob: Blob,
}

/// One of the images that are found.
#[derive(Debug)]
pub(crate) struct Candidate<T> {
    pub(crate) platform: ImagePlatform,
    /// What images are told apart by: two with one digest are one.
    pub(crate) digest: Digest,
    pub(crate) tags: Vec<String>,
    pub(crate) image: T,
}

impl ImagePlatform {
    /// What an image's configuration says.
    pub(crate) fn of(config: &Config) -> Self {
        Self {
            os: config.os.clone(),
            architecture: config.architecture.clone(),
            variant: config.variant.clone(),
        }
    }
}

/// The image that is meant: the only one that is left for the platform.
pub(crate) fn choose<T>(
    candidates: Vec<Candidate<T>>,
    reference: &ImageReference,
    wanted: Wanted,
) -> Result<Candidate<T>, ImageError> {
    let platforms = named(candidates.iter().map(|one| one.platform.to_string()));
    let tags = named(candidates.iter().flat_map(|one| one.tags.iter().cloned()));
    let images = candidates.into_iter();
    let mut best = wanted.best(images.map(|one| (one.platform.clone(), one)).collect());
    best.sort_by(|a, b| a.digest.cmp(&b.digest));
    best.dedup_by(|a, b| a.digest == b.digest);
    let count = best.len();
    let digests = named(best.iter().map(|one| one.digest.to_string()));
    match (best.pop(), count) {
        (Some(one), 1) => Ok(one),
        (None, _) => Err(ImageError::Invalid(format!(
            "it has no image for {wanted}, which the kernel is for, only for: {platforms}; {}",
            wanted.advice()
        ))),
        (Some(one), count) => {
            let form = reference.of_kind(reference.kind);
            Err(ImageError::Invalid(format!(
                "it has {count} images for {wanted}: name one by its tag, as in `{form}:TAG`, or by its digest, as in `{form}@{}`; tags: {tags}; digests: {digests}",
                one.digest
            )))
        }
    }
}

/// The error where no image has the tag or digest.
pub(crate) fn none_is(what: &str, tags: impl Iterator<Item = String>) -> ImageError {
    ImageError::Invalid(format!(
        "it has no image with {what}; its tags: {}",
        named(tags)
    ))
}

/// The first few, each once.
fn named(texts: impl Iterator<Item = String>) -> String {
    let texts: BTreeSet<String> = texts.collect();
    list(texts, MOST_NAMED).unwrap_or_else(|| "none".to_owned())
}
