//! Where container images come from: OCI layout folders (OCI image
//! specification, "image-layout.md") and archives as `docker save` writes them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use manifest::ImageReference;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::container::{Config, Container};
use crate::error::BuildError;
use crate::layer::Layer;

/// Largest JSON document of an image, in bytes.
const MAX_JSON: u64 = 4 * 1024 * 1024;
/// Most layers of an image.
const MAX_LAYERS: usize = 512;
/// How deep an index may point to an index.
const MAX_INDEX_DEPTH: usize = 4;

/// Reads the image that the manifest names, for `architecture` as OCI calls it.
pub(crate) fn load(
    reference: &ImageReference,
    architecture: &str,
) -> Result<Container, BuildError> {
    let (image, container) = match reference {
        ImageReference::OciLayout { path, tag } => {
            let layout = Layout {
                folder: path.clone(),
            };
            (path, layout.load(tag.as_deref(), architecture))
        }
        ImageReference::DockerArchive { path, tag } => (path, load_archive(path, tag.as_deref())),
    };
    let container = container.map_err(|reason| BuildError::Image {
        image: image.clone(),
        reason,
    })?;
    if container.config.architecture != architecture || container.config.os != "linux" {
        return Err(BuildError::Image {
            image: image.clone(),
            reason: format!(
                "it is for {}/{}, an enclave with this kernel needs linux/{architecture}: build the image with --platform linux/{architecture}",
                container.config.os, container.config.architecture
            ),
        });
    }
    Ok(container)
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default)]
    platform: Option<Platform>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

impl Descriptor {
    /// The tag (OCI image specification, "annotations.md").
    fn name(&self) -> Option<&str> {
        self.annotations
            .get("org.opencontainers.image.ref.name")
            .map(String::as_str)
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
    layers: Vec<Descriptor>,
}

struct Layout {
    folder: PathBuf,
}

impl Layout {
    fn load(&self, tag: Option<&str>, architecture: &str) -> Result<Container, String> {
        let index = self.folder.join("index.json");
        let bytes = read_bounded(&index).map_err(|error| {
            format!(
                "it is not an OCI image layout: {}: {error}",
                index.display()
            )
        })?;
        let mut index: Index = parse(&bytes, "index.json")?;
        if let Some(tag) = tag {
            index
                .manifests
                .retain(|descriptor| descriptor.name() == Some(tag));
            if index.manifests.is_empty() {
                return Err(format!("it has no image with the tag {tag}"));
            }
        }
        let manifest = self.find_manifest(&index, architecture, 0)?;
        let config_bytes = self.json(&manifest.config)?;
        let config: Config = parse(&config_bytes, "the image configuration")?;
        if manifest.layers.len() != config.rootfs.diff_ids.len()
            || manifest.layers.len() > MAX_LAYERS
        {
            return Err(format!(
                "it has {} layers and {} diff ids; they must be as many, and at most {MAX_LAYERS}",
                manifest.layers.len(),
                config.rootfs.diff_ids.len()
            ));
        }
        let mut layers = Vec::with_capacity(manifest.layers.len());
        for (descriptor, diff_id) in manifest.layers.iter().zip(&config.rootfs.diff_ids) {
            let blob = self.open(descriptor)?;
            let layer = Layer::unpack(BufReader::new(blob), Some(&descriptor.digest), diff_id);
            layers.push(layer.map_err(|error| format!("layer {}: {error}", descriptor.digest))?);
        }
        Ok(Container {
            config,
            config_digest: sha256(&config_bytes),
            layers,
        })
    }

    /// Exactly one manifest for the platform; a manifest that names no
    /// platform is taken if it is the only one.
    fn find_manifest(
        &self,
        index: &Index,
        architecture: &str,
        depth: usize,
    ) -> Result<Manifest, String> {
        if depth > MAX_INDEX_DEPTH {
            return Err("its index points to itself or too deep".to_owned());
        }
        let fits = |descriptor: &&Descriptor| match &descriptor.platform {
            Some(platform) => platform.os == "linux" && platform.architecture == architecture,
            None => index.manifests.len() == 1,
        };
        let mut fitting = index.manifests.iter().filter(fits);
        let (Some(descriptor), None) = (fitting.next(), fitting.next()) else {
            return Err(format!(
                "its index has {} manifests for linux/{architecture} instead of exactly one: copy the one you mean into a layout of its own",
                index.manifests.iter().filter(fits).count()
            ));
        };
        let bytes = self.json(descriptor)?;
        if descriptor.media_type.ends_with("index.v1+json")
            || descriptor.media_type.ends_with("manifest.list.v2+json")
        {
            return self.find_manifest(&parse(&bytes, "an index")?, architecture, depth + 1);
        }
        parse(&bytes, "the image manifest")
    }

    /// A JSON document, checked against its descriptor.
    fn json(&self, descriptor: &Descriptor) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        self.open(descriptor)?
            .take(MAX_JSON + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| format!("blob {}: {error}", descriptor.digest))?;
        if bytes.len() as u64 > MAX_JSON {
            return Err(format!(
                "blob {} has more than {MAX_JSON} bytes",
                descriptor.digest
            ));
        }
        let computed = sha256(&bytes);
        if descriptor.digest != format!("sha256:{computed}") {
            return Err(format!(
                "blob {} has the digest sha256:{computed}: it is damaged",
                descriptor.digest
            ));
        }
        Ok(bytes)
    }

    /// A blob of the size that its descriptor says.
    fn open(&self, descriptor: &Descriptor) -> Result<File, String> {
        let hash = descriptor
            .digest
            .strip_prefix("sha256:")
            .filter(|hash| hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()))
            .ok_or_else(|| format!("the digest {} is not a SHA-256 digest", descriptor.digest))?;
        let path = self.folder.join("blobs/sha256").join(hash);
        let file = File::open(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let size = file.metadata().map_err(|error| error.to_string())?.len();
        if size != descriptor.size {
            return Err(format!(
                "blob {} has {size} bytes, the image says {}: it is damaged",
                descriptor.digest, descriptor.size
            ));
        }
        Ok(file)
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ArchiveManifest {
    config: String,
    layers: Vec<String>,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
}

impl ArchiveManifest {
    fn has(&self, tag: &str) -> bool {
        self.repo_tags.iter().flatten().any(|name| name == tag)
    }
}

fn load_archive(path: &Path, tag: Option<&str>) -> Result<Container, String> {
    let entries =
        index_archive(path).map_err(|error| format!("it is not a docker archive: {error}"))?;
    let read = |name: &str| -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        open_entry(path, &entries, name)?
            .take(MAX_JSON)
            .read_to_end(&mut bytes)
            .map_err(|error| format!("{name}: {error}"))?;
        Ok(bytes)
    };
    let mut manifests: Vec<ArchiveManifest> = parse(&read("manifest.json")?, "manifest.json")?;
    if let Some(tag) = tag {
        manifests.retain(|manifest| manifest.has(tag));
    }
    let [manifest] = manifests.as_slice() else {
        return Err(format!(
            "it holds {} such images instead of one: name one by its tag, as in docker-archive:FILE:NAME:TAG",
            manifests.len()
        ));
    };
    let config_bytes = read(&manifest.config)?;
    let config: Config = parse(&config_bytes, "the image configuration")?;
    if manifest.layers.len() != config.rootfs.diff_ids.len() || manifest.layers.len() > MAX_LAYERS {
        return Err("its layers and diff ids are not as many, or too many".to_owned());
    }
    let mut layers = Vec::with_capacity(manifest.layers.len());
    for (name, diff_id) in manifest.layers.iter().zip(&config.rootfs.diff_ids) {
        let layer = Layer::unpack(open_entry(path, &entries, name)?, None, diff_id);
        layers.push(layer.map_err(|error| format!("layer {name}: {error}"))?);
    }
    Ok(Container {
        config,
        config_digest: sha256(&config_bytes),
        layers,
    })
}

/// Where each file of the archive is; symbolic links, which `docker save`
/// writes for repeated layers, point to what they name.
fn index_archive(path: &Path) -> io::Result<BTreeMap<String, (u64, u64)>> {
    let mut archive = tar::Archive::new(File::open(path)?);
    let mut entries = BTreeMap::new();
    let mut links = Vec::new();
    for entry in archive.entries()? {
        let entry = entry?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        if let Some(target) = entry.link_name_bytes() {
            links.push((name, String::from_utf8_lossy(&target).into_owned()));
        } else {
            entries.insert(name, (entry.raw_file_position(), entry.size()));
        }
    }
    for (name, target) in links {
        let target = target.trim_start_matches("../");
        if let Some(place) = entries.get(target).copied() {
            entries.insert(name, place);
        }
    }
    Ok(entries)
}

fn open_entry(
    path: &Path,
    entries: &BTreeMap<String, (u64, u64)>,
    name: &str,
) -> Result<impl Read + use<>, String> {
    use std::io::{Seek, SeekFrom};
    let (offset, size) = entries
        .get(name)
        .ok_or_else(|| format!("{name} is missing from the archive"))?;
    let mut file = File::open(path).map_err(|error| error.to_string())?;
    file.seek(SeekFrom::Start(*offset))
        .map_err(|error| error.to_string())?;
    Ok(BufReader::new(file).take(*size))
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_JSON).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn parse<T: DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T, String> {
    serde_json::from_slice(bytes).map_err(|error| format!("{what} cannot be read: {error}"))
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(digest(&SHA256, bytes))
}
