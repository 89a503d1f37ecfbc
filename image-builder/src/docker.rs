//! Archives as `docker save` and `podman save` write them (Docker image
//! specification v1.2, "Combined Image JSON + Filesystem Changeset Format"). Newer ones are
//! an OCI image layout, too: this part of them has the tags as Docker shows them.

use manifest::{ImageChoice, ImageReference};
use serde::Deserialize;

use crate::container::Config;
use crate::digest::Digest;
use crate::error::ImageError;
use crate::parts::{Candidates, Parts, StoredLayer, check_tags, none_is};
use crate::platform::{ImagePlatform, Wanted};
use crate::storage::Storage;
use crate::stored::parse;

/// The list of images.
pub(crate) const MANIFEST: &str = "manifest.json";
/// Most images that are looked at.
const MAX_IMAGES: usize = 256;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Manifest {
    config: String,
    #[serde(default)]
    layers: Option<Vec<String>>,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
}

impl Manifest {
    fn tags(&self) -> impl Iterator<Item = &String> {
        self.repo_tags.iter().flatten()
    }
}

/// Finds the image with a tag, as in `server:1.2`, or with an id, or the only one.
pub(crate) fn find(
    storage: &Storage,
    reference: &ImageReference,
    wanted: Wanted,
) -> Result<Parts, ImageError> {
    let images: Vec<Manifest> = parse(&storage.document(MANIFEST, MANIFEST)?, MANIFEST)?;
    let count = images.len();
    if count > MAX_IMAGES {
        return Err(ImageError::Invalid(format!(
            "{MANIFEST} has {count} images, more than the {MAX_IMAGES} that are looked at"
        )));
    }
    let tags: Vec<_> = images.iter().flat_map(Manifest::tags).cloned().collect();
    check_tags(tags.iter().map(String::as_str))?;
    let mut candidates = Candidates::new(wanted);
    for image in images {
        let has_tag = |tag: &String| image.tags().any(|own| own == tag);
        if matches!(&reference.choice, Some(ImageChoice::Tag(tag)) if !has_tag(tag)) {
            continue;
        }
        let bytes = storage.document(&image.config, &image.config)?;
        // The image's id, as Docker shows it.
        let id = Digest::of(&bytes);
        if matches!(&reference.choice, Some(ImageChoice::Digest(digest)) if *digest != id.to_string())
        {
            continue;
        }
        let config: Config = parse(&bytes, "its configuration")?;
        // Read again of the one that is meant: together they may be more than the memory.
        let image = (image.config, image.layers.unwrap_or_default());
        candidates.add(ImagePlatform::of(&config), id, image);
    }
    if candidates.is_empty() {
        match &reference.choice {
            Some(ImageChoice::Tag(tag)) => {
                return Err(none_is(&format!("the tag `{tag}`"), &tags));
            }
            Some(ImageChoice::Digest(digest)) => {
                return Err(none_is(
                    &format!("the id {digest} (`docker images --no-trunc` shows ids)"),
                    &tags,
                ));
            }
            None => {}
        }
    }
    let chosen = candidates.choose(reference, &tags)?;
    let (name, layers) = chosen.image;
    let config = storage.document(&name, &name)?;
    if Digest::of(&config) != chosen.digest {
        return Err(ImageError::Invalid(format!(
            "{name} in it has changed while it was read: build again"
        )));
    }
    let layers = layers.into_iter().map(|name| {
        Ok(StoredLayer {
            blob: storage.blob(&name)?,
            digest: None,
            name,
        })
    });
    Ok(Parts {
        platform: chosen.platform,
        config,
        layers: layers.collect::<Result<_, ImageError>>()?,
    })
}
