//! Archives as `docker save` and `podman save` write them (Docker image
//! specification v1.2, "Combined Image JSON + Filesystem Changeset Format").

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::Deserialize;

use crate::archive::{ArchiveError, Entries};
use crate::error::ImageError;
use crate::layer;
use crate::layout::named;
use crate::node::{Content, Kind};
use crate::spool::Range;
use crate::stored::{Parts, StoredLayer, open, parse, read_document};
use crate::tree::Tree;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Manifest {
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

/// Finds the image with a tag, as in `server:1.2`, or the only one.
pub(crate) fn find(path: &Path, tag: Option<&str>) -> Result<Parts, ImageError> {
    let file = open(path)?;
    let tree = index(&file)?;
    let content = |name: &str| match tree.lookup(name.as_bytes()).map(|node| &node.kind) {
        Some(Kind::File { content, .. }) => Ok(*content),
        _ => Err(ImageError::Invalid(format!(
            "{name} is missing in it: save the image again"
        ))),
    };
    let document = |name: &str| read_document(&file, content(name)?, name);
    let images: Vec<Manifest> = parse(&document("manifest.json")?, "manifest.json")?;
    let all = named(images.iter().flat_map(Manifest::tags).cloned());
    let fitting: Vec<_> = match tag {
        Some(tag) => images
            .iter()
            .filter(|image| image.tags().any(|own| own == tag))
            .collect(),
        None => images.iter().collect(),
    };
    let manifest = match (fitting.as_slice(), tag) {
        ([one], _) => one,
        ([], Some(tag)) => {
            return Err(ImageError::Invalid(format!(
                "it has no image with the tag `{tag}`; its tags: {all}"
            )));
        }
        (several, _) => {
            return Err(ImageError::Invalid(format!(
                "it has {} images instead of one: name one by its tag, as in `docker-archive:FILE:NAME:TAG`; its tags: {all}",
                several.len()
            )));
        }
    };
    let layers = manifest.layers.iter().flatten().map(|name| {
        Ok(StoredLayer {
            name: name.clone(),
            digest: None,
            file: path.to_owned(),
            range: content(name)?,
        })
    });
    Ok(Parts {
        config: document(&manifest.config)?,
        layers: layers.collect::<Result<_, ImageError>>()?,
    })
}

/// The archive's own files. Layers that are there more than once are links,
/// also links to links.
fn index(file: &File) -> Result<Tree, ImageError> {
    let size = file.metadata().map_err(ImageError::read)?.len();
    let mut start = Vec::new();
    Range::new(file, Content { offset: 0, size: 4 })
        .read_to_end(&mut start)
        .map_err(ImageError::read)?;
    if layer::is_compressed(&start) {
        return Err(ImageError::Invalid(
            "it is compressed: decompress it first, as with gunzip".to_owned(),
        ));
    }
    let mut tree = Tree::default();
    for entry in Entries::new(file, Content { offset: 0, size }) {
        let entry = entry.map_err(|error| match error {
            ArchiveError::Io(source) => ImageError::read(source),
            ArchiveError::Header(0) => ImageError::Invalid(
                "it is not a tar archive: write it with `docker save`".to_owned(),
            ),
            error => ImageError::Invalid(error.to_string()),
        })?;
        layer::add(&entry, &mut tree).map_err(|error| {
            let name = String::from_utf8_lossy(&entry.name);
            ImageError::Invalid(format!("entry {name}: {error}"))
        })?;
    }
    Ok(tree)
}
