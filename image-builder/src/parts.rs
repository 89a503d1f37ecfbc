//! A container image's parts, found and still unread, and the one that is meant of several.

use std::collections::{BTreeMap, BTreeSet};

use manifest::ImageReference;

use crate::container::Config;
use crate::digest::Digest;
use crate::error::ImageError;
use crate::list::list;
use crate::platform::{ImagePlatform, Wanted};
use crate::storage::Blob;

/// Most tags, digests or platforms that an error names.
const MOST_NAMED: usize = 8;
/// Longest tag, in bytes: a registry's host, a repository (255) and its tag (128).
const MAX_TAG: usize = 512;
/// How much of a platform's name an error shows, in characters.
const MAX_PLATFORM: usize = 64;

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

/// The image that is meant.
#[derive(Debug)]
pub(crate) struct Chosen<T> {
    pub(crate) platform: ImagePlatform,
    pub(crate) digest: Digest,
    pub(crate) image: T,
}

/// The images that are found. Of those for other platforms only their platforms are kept, and
/// of those that are found again nothing, so the memory does not grow with them.
#[derive(Debug)]
pub(crate) struct Candidates<T> {
    wanted: Wanted,
    /// What the images are for, all of them.
    platforms: BTreeSet<String>,
    /// Those that run on the platform. Images are told apart by their digests: two with one
    /// digest are one.
    fitting: BTreeMap<(Digest, ImagePlatform), T>,
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

impl<T> Candidates<T> {
    pub(crate) fn new(wanted: Wanted) -> Self {
        Self {
            wanted,
            platforms: BTreeSet::new(),
            fitting: BTreeMap::new(),
        }
    }

    /// Whether there is no image, for any platform.
    pub(crate) fn is_empty(&self) -> bool {
        self.platforms.is_empty()
    }

    pub(crate) fn add(&mut self, platform: ImagePlatform, digest: Digest, image: T) {
        let text = platform.to_string();
        self.platforms
            .insert(text.chars().take(MAX_PLATFORM).collect());
        if self.wanted.fits(&platform) {
            self.fitting.entry((digest, platform)).or_insert(image);
        }
    }

    /// The image that is meant: the only one that is left for the platform. The tags are
    /// those that it could be named by.
    pub(crate) fn choose(
        self,
        reference: &ImageReference,
        tags: &[String],
    ) -> Result<Chosen<T>, ImageError> {
        let wanted = self.wanted;
        let images = self.fitting.into_iter().map(|((digest, platform), image)| {
            let chosen = Chosen {
                platform: platform.clone(),
                digest,
                image,
            };
            (platform, chosen)
        });
        let mut best = wanted.best(images.collect());
        best.dedup_by(|a, b| a.digest == b.digest);
        let count = best.len();
        let digests = named(best.iter().map(|one| one.digest.to_string()));
        match (best.pop(), count) {
            (Some(one), 1) => Ok(one),
            (None, _) => Err(ImageError::Invalid(format!(
                "it has no image for {wanted}, which the kernel is for, only for: {}; {}",
                named(self.platforms),
                wanted.advice()
            ))),
            (Some(one), count) => {
                let form = reference.of_kind(reference.kind);
                Err(ImageError::Invalid(format!(
                    "it has {count} images for {wanted}: name one by its tag, as in `{form}:TAG`, or by its digest, as in `{form}@{}`; tags: {}; digests: {digests}",
                    one.digest,
                    named(tags.iter().cloned())
                )))
            }
        }
    }
}

/// Refuses tags that are no names: they are kept, and errors list them.
pub(crate) fn check_tags<'a>(tags: impl Iterator<Item = &'a str>) -> Result<(), ImageError> {
    for tag in tags {
        if tag.len() > MAX_TAG {
            return Err(ImageError::Invalid(format!(
                "one of its tags has {} bytes, more than the {MAX_TAG} of any registry: tag the image again",
                tag.len()
            )));
        }
    }
    Ok(())
}

/// The error where no image has the tag or digest.
pub(crate) fn none_is(what: &str, tags: &[String]) -> ImageError {
    ImageError::Invalid(format!(
        "it has no image with {what}; its tags: {}",
        named(tags.iter().cloned())
    ))
}

/// The first few, each once.
fn named(texts: impl IntoIterator<Item = String>) -> String {
    let texts: BTreeSet<String> = texts.into_iter().collect();
    list(texts, MOST_NAMED).unwrap_or_else(|| "none".to_owned())
}
