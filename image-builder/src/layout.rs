//! OCI image layouts (OCI image specification, "image-layout.md",
//! "image-index.md", "manifest.md").

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::digest::Digest;
use crate::error::ImageError;
use crate::list::list;
use crate::node::Content;
use crate::stored::{Parts, StoredLayer, open, parse, read_document};

/// How deep an index may point to an index.
const MAX_INDEX_DEPTH: usize = 4;
/// Most tags or platforms that an error names.
const MOST_NAMED: usize = 8;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: Digest,
    size: u64,
    #[serde(default)]
    platform: Option<Platform>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

impl Descriptor {
    /// The tag (OCI image specification, "annotations.md").
    fn tag(&self) -> Option<&str> {
        let annotations = self.annotations.as_ref()?;
        annotations
            .get("org.opencontainers.image.ref.name")
            .map(String::as_str)
    }

    fn is_index(&self) -> bool {
        self.media_type.ends_with("index.v1+json")
            || self.media_type.ends_with("manifest.list.v2+json")
    }
}

#[derive(Debug, Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

#[derive(Debug, Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Debug, Deserialize)]
struct Manifest {
    config: Descriptor,
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
}

/// Finds the image for a platform, as in `amd64`, in the layout's folder.
pub(crate) fn find(folder: &Path, tag: Option<&str>, platform: &str) -> Result<Parts, ImageError> {
    let path = folder.join("index.json");
    let file = open(&path)?;
    let size = file.metadata().map_err(ImageError::read)?.len();
    let bytes = read_document(&file, Content { offset: 0, size }, "index.json")?;
    let mut index: Index = parse(&bytes, "index.json")?;
    if let Some(tag) = tag {
        let all = tags(&index.manifests);
        index.manifests.retain(|image| image.tag() == Some(tag));
        if index.manifests.is_empty() {
            return Err(ImageError::Invalid(format!(
                "it has no image with the tag `{tag}`; its tags: {all}"
            )));
        }
    }
    let layout = Layout {
        folder: folder.to_owned(),
    };
    let manifest = layout.manifest(&index, platform, 0)?;
    let layers = manifest.layers.unwrap_or_default();
    let layers = layers.into_iter().map(|descriptor| {
        let (file, range) = layout.blob(&descriptor)?;
        Ok(StoredLayer {
            name: descriptor.digest.to_string(),
            digest: Some(descriptor.digest),
            file,
            range,
        })
    });
    Ok(Parts {
        config: layout.document(&manifest.config)?,
        layers: layers.collect::<Result<_, ImageError>>()?,
    })
}

struct Layout {
    folder: PathBuf,
}

impl Layout {
    /// Exactly one manifest for the platform, or exactly one of those that name
    /// no platform.
    fn manifest(
        &self,
        index: &Index,
        platform: &str,
        depth: usize,
    ) -> Result<Manifest, ImageError> {
        if depth > MAX_INDEX_DEPTH {
            return Err(ImageError::Invalid(format!(
                "its indices point to each other more than {MAX_INDEX_DEPTH} deep"
            )));
        }
        let descriptor = choose(&index.manifests, platform)?;
        let bytes = self.document(descriptor)?;
        if descriptor.is_index() {
            return self.manifest(&parse(&bytes, "its index")?, platform, depth + 1);
        }
        parse(&bytes, "its manifest")
    }

    /// A JSON document, checked against its digest.
    fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>, ImageError> {
        let digest = &descriptor.digest;
        let (path, range) = self.blob(descriptor)?;
        let bytes = read_document(&open(&path)?, range, &format!("blob {digest}"))?;
        let computed = Digest::of(&bytes);
        if computed != *digest {
            return Err(ImageError::Invalid(format!(
                "blob {digest} has the digest {computed}: it is damaged, copy or build the image again"
            )));
        }
        Ok(bytes)
    }

    /// A blob of the size that its descriptor says.
    fn blob(&self, descriptor: &Descriptor) -> Result<(PathBuf, Content), ImageError> {
        let path = self
            .folder
            .join("blobs/sha256")
            .join(descriptor.digest.hex());
        let size = open(&path)?.metadata().map_err(ImageError::read)?.len();
        if size != descriptor.size {
            return Err(ImageError::Invalid(format!(
                "blob {} has {size} bytes instead of {}: it is damaged, copy or build the image again",
                descriptor.digest, descriptor.size
            )));
        }
        Ok((path, Content { offset: 0, size }))
    }
}

fn choose<'a>(descriptors: &'a [Descriptor], platform: &str) -> Result<&'a Descriptor, ImageError> {
    let is_for_platform = |descriptor: &&Descriptor| {
        let named = descriptor.platform.as_ref();
        named.is_some_and(|named| named.os == "linux" && named.architecture == platform)
    };
    let mut fitting: Vec<_> = descriptors.iter().filter(is_for_platform).collect();
    if fitting.is_empty() {
        let unnamed = descriptors.iter().filter(|image| image.platform.is_none());
        fitting = unnamed.collect();
    }
    // One image may have several tags.
    fitting.sort_by(|a, b| a.digest.hex().cmp(b.digest.hex()));
    fitting.dedup_by(|a, b| a.digest == b.digest);
    match fitting.as_slice() {
        [one] => Ok(one),
        [] => Err(ImageError::Invalid(format!(
            "it has no image for linux/{platform}, which the kernel is for, only for: {}; build it with --platform linux/{platform}, or give another kernel",
            named(descriptors.iter().filter_map(|image| {
                let platform = image.platform.as_ref()?;
                Some(format!("{}/{}", platform.os, platform.architecture))
            }))
        ))),
        several => Err(ImageError::Invalid(format!(
            "it has {} images for linux/{platform}: name one by its tag, as in `oci:FOLDER:TAG`; its tags: {}",
            several.len(),
            tags(descriptors)
        ))),
    }
}

fn tags(descriptors: &[Descriptor]) -> String {
    let tags = descriptors.iter().filter_map(Descriptor::tag);
    named(tags.map(ToOwned::to_owned))
}

/// The first few, each once.
pub(crate) fn named(texts: impl Iterator<Item = String>) -> String {
    let texts: BTreeSet<String> = texts.collect();
    list(texts, MOST_NAMED).unwrap_or_else(|| "none".to_owned())
}
