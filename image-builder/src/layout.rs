//! OCI image layouts (OCI image specification, "image-layout.md",
//! "image-index.md", "manifest.md").

use std::collections::BTreeSet;

use manifest::{ImageChoice, ImageReference};
use serde::Deserialize;

use crate::container::Config;
use crate::digest::Digest;
use crate::error::ImageError;
use crate::parts::{Candidates, Parts, StoredLayer, check_tags, none_is};
use crate::platform::{ImagePlatform, Wanted};
use crate::storage::{Blob, Storage};
use crate::stored::{parse, read_document};

/// The index that everything is found from.
pub(crate) const INDEX: &str = "index.json";
/// How deep an index may point to an index.
const MAX_INDEX_DEPTH: usize = 4;
/// Most entries of indices that are looked at.
const MAX_ENTRIES: usize = 4096;
/// The parts of such a name that Docker does not show.
const DEFAULT_REGISTRIES: [&str; 2] = ["docker.io/library/", "docker.io/"];

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: Digest,
    size: u64,
    #[serde(default)]
    platform: Option<ImagePlatform>,
    #[serde(default)]
    annotations: Option<Annotations>,
    /// Of something that is no image.
    #[serde(default)]
    artifact_type: Option<String>,
}

/// The annotations that name an image.
#[derive(Debug, Deserialize)]
struct Annotations {
    /// The tag (OCI image specification, "annotations.md").
    #[serde(rename = "org.opencontainers.image.ref.name")]
    tag: Option<String>,
    /// The tag with what is before it, as containerd and with it Docker and `BuildKit` write it.
    #[serde(rename = "io.containerd.image.name")]
    containerd_name: Option<String>,
}

impl Descriptor {
    /// The names that the image can be chosen by.
    fn tags(&self) -> impl Iterator<Item = &str> {
        let annotations = self.annotations.as_ref();
        let tag = annotations.and_then(|names| names.tag.as_deref());
        let name = annotations.and_then(|names| names.containerd_name.as_deref());
        let short = name.and_then(|name| {
            let mut registries = DEFAULT_REGISTRIES.iter();
            registries.find_map(|registry| name.strip_prefix(registry))
        });
        [tag, name, short].into_iter().flatten()
    }

    fn is_index(&self) -> bool {
        self.media_type.ends_with("index.v1+json")
            || self.media_type.ends_with("manifest.list.v2+json")
    }

    /// Whether this is the media type of an image's configuration, as far as it says.
    fn is_config(&self) -> bool {
        self.media_type.is_empty()
            || self.media_type.ends_with(".image.config.v1+json")
            || self.media_type.ends_with(".container.image.v1+json")
    }
}

#[derive(Debug, Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    config: Descriptor,
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
    #[serde(default)]
    artifact_type: Option<String>,
}

/// Finds the image that is meant.
pub(crate) fn find(
    storage: &Storage,
    reference: &ImageReference,
    wanted: Wanted,
) -> Result<Parts, ImageError> {
    let mut index: Index = parse(&storage.document(INDEX, INDEX)?, INDEX)?;
    check_tags(index.manifests.iter().flat_map(Descriptor::tags))?;
    let tags: Vec<_> = index
        .manifests
        .iter()
        .flat_map(Descriptor::tags)
        .map(ToOwned::to_owned)
        .collect();
    let mut digest = None;
    match &reference.choice {
        Some(ImageChoice::Tag(tag)) => {
            index
                .manifests
                .retain(|image| image.tags().any(|own| own == tag));
            if index.manifests.is_empty() {
                return Err(none_is(&format!("the tag `{tag}`"), &tags));
            }
        }
        Some(ImageChoice::Digest(text)) => {
            digest = Some(Digest::try_from(text.clone()).map_err(ImageError::Invalid)?);
        }
        None => {}
    }
    let mut layout = Layout {
        storage,
        digest,
        entries_left: MAX_ENTRIES,
        read: BTreeSet::new(),
        candidates: Candidates::new(wanted),
    };
    let is_chosen = layout.digest.is_none();
    layout.collect(&index, is_chosen, 0)?;
    if let (Some(digest), true) = (&layout.digest, layout.candidates.is_empty()) {
        return Err(none_is(&format!("the digest {digest}"), &tags));
    }
    let Layout { candidates, .. } = layout;
    let chosen = candidates.choose(reference, &tags)?;
    let manifest = manifest(storage, &chosen.digest, chosen.image)?;
    let layers = manifest.layers.unwrap_or_default();
    let layers = layers.into_iter().map(|descriptor| {
        if descriptor.media_type.ends_with("+encrypted") {
            return Err(ImageError::Invalid(format!(
                "layer {} is encrypted: decrypt the image first, with `skopeo copy --decryption-key`",
                descriptor.digest
            )));
        }
        Ok(StoredLayer {
            name: descriptor.digest.to_string(),
            blob: blob(storage, &descriptor.digest, descriptor.size)?,
            digest: Some(descriptor.digest),
        })
    });
    Ok(Parts {
        platform: chosen.platform,
        config: document(storage, &manifest.config.digest, manifest.config.size)?,
        layers: layers.collect::<Result<_, ImageError>>()?,
    })
}

struct Layout<'a> {
    storage: &'a Storage,
    /// Of the index or manifest that is meant.
    digest: Option<Digest>,
    entries_left: usize,
    /// The indices and manifests that were read, below what is chosen or elsewhere: each is
    /// read once, however many entries point to it.
    read: BTreeSet<(Digest, bool)>,
    /// The images, by the sizes of their manifests.
    candidates: Candidates<u64>,
}

impl Layout<'_> {
    /// Collects the images of an index, and of those that it points to. `is_chosen` says
    /// that it is below what the digest names.
    fn collect(&mut self, index: &Index, is_chosen: bool, depth: usize) -> Result<(), ImageError> {
        if depth > MAX_INDEX_DEPTH {
            return Err(ImageError::Invalid(format!(
                "its indices point to each other more than {MAX_INDEX_DEPTH} deep"
            )));
        }
        for descriptor in &index.manifests {
            self.entries_left = self.entries_left.checked_sub(1).ok_or_else(|| {
                ImageError::Invalid(format!(
                    "its indices have more than {MAX_ENTRIES} entries: copy the one that is meant, with `skopeo copy`"
                ))
            })?;
            let is_chosen = is_chosen || self.digest.as_ref() == Some(&descriptor.digest);
            let Descriptor { digest, size, .. } = descriptor;
            if descriptor.is_index() {
                if self.read.insert((digest.clone(), is_chosen)) {
                    let bytes = document(self.storage, digest, *size)?;
                    self.collect(&parse(&bytes, "its index")?, is_chosen, depth + 1)?;
                }
            } else if is_chosen && let Some(platform) = self.platform(descriptor)? {
                self.candidates.add(platform, digest.clone(), *size);
            }
        }
        Ok(())
    }

    /// What an image is for, as the index says it, else its configuration. Signatures, bills
    /// of materials and other things that refer to images are none.
    fn platform(&mut self, descriptor: &Descriptor) -> Result<Option<ImagePlatform>, ImageError> {
        if descriptor.artifact_type.is_some() {
            return Ok(None);
        }
        if let Some(platform) = &descriptor.platform {
            return Ok(Some(platform.clone()));
        }
        if !self.read.insert((descriptor.digest.clone(), true)) {
            return Ok(None);
        }
        let Manifest {
            config,
            artifact_type,
            ..
        } = manifest(self.storage, &descriptor.digest, descriptor.size)?;
        if artifact_type.is_some() || !config.is_config() {
            return Ok(None);
        }
        let bytes = document(self.storage, &config.digest, config.size)?;
        let config: Config = parse(&bytes, "its configuration")?;
        Ok(Some(ImagePlatform::of(&config)))
    }
}

fn manifest(storage: &Storage, digest: &Digest, size: u64) -> Result<Manifest, ImageError> {
    parse(&document(storage, digest, size)?, "its manifest")
}

/// A JSON document, checked against its digest.
fn document(storage: &Storage, digest: &Digest, size: u64) -> Result<Vec<u8>, ImageError> {
    let blob = blob(storage, digest, size)?;
    let bytes = read_document(&*blob.open()?, blob.range, &format!("blob {digest}"))?;
    let computed = Digest::by(digest.algorithm(), &bytes);
    if computed != *digest {
        return Err(ImageError::Invalid(format!(
            "blob {digest} has the digest {computed}: it is damaged, copy or build the image again"
        )));
    }
    Ok(bytes)
}

/// A blob of the size that its descriptor says.
fn blob(storage: &Storage, digest: &Digest, size: u64) -> Result<Blob, ImageError> {
    let blob = storage.blob(&digest.blob())?;
    let found = blob.range.size;
    if found != size {
        return Err(ImageError::Invalid(format!(
            "blob {digest} has {found} bytes instead of {size}: it is damaged, copy or build the image again"
        )));
    }
    Ok(blob)
}
