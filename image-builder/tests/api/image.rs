//! Container images as OCI layouts and docker archives.

use std::fs;
use std::path::Path;

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::{Value, json};

use crate::layer::{Layer, elf, gzip, zstd};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

pub(crate) fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(digest(&SHA256, bytes)))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip(u32),
    Zstd,
}

/// An image: layers as they are stored, and the configuration that goes with them.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    pub(crate) layers: Vec<Vec<u8>>,
    pub(crate) config: Value,
}

impl Image {
    /// An image whose entrypoint is `/app`, which the first layer should have.
    pub(crate) fn new(layers: &[Layer]) -> Self {
        Self::compressed(layers, Compression::Gzip(6))
    }

    pub(crate) fn compressed(layers: &[Layer], compression: Compression) -> Self {
        let tars: Vec<_> = layers.iter().map(Layer::tar).collect();
        let stored = tars.iter().map(|tar| match compression {
            Compression::None => tar.clone(),
            Compression::Gzip(level) => gzip(tar, level),
            Compression::Zstd => zstd(tar),
        });
        Self::stored(&tars, stored.collect())
    }

    /// Any bytes as layers.
    pub(crate) fn stored(tars: &[Vec<u8>], layers: Vec<Vec<u8>>) -> Self {
        let diff_ids: Vec<_> = tars.iter().map(|tar| sha256(tar)).collect();
        Self {
            layers,
            config: json!({
                "architecture": "amd64",
                "os": "linux",
                "config": { "Entrypoint": ["/app"] },
                "rootfs": { "type": "layers", "diff_ids": diff_ids },
            }),
        }
    }

    /// A change of the configuration's `config`.
    pub(crate) fn with(mut self, key: &str, value: Value) -> Self {
        self.config["config"][key] = value;
        self
    }

    /// Writes an OCI layout that has only this image.
    pub(crate) fn write_layout(&self, folder: &Path) {
        let manifest = self.write_blobs(folder);
        write_index(folder, &[manifest]);
    }

    /// Writes the blobs; gives the manifest's descriptor.
    pub(crate) fn write_blobs(&self, folder: &Path) -> Value {
        let layers: Vec<_> = self
            .layers
            .iter()
            .map(|layer| write_blob(folder, "application/vnd.oci.image.layer.v1.tar", layer))
            .collect();
        let config = write_blob(
            folder,
            "application/vnd.oci.image.config.v1+json",
            self.config.to_string().as_bytes(),
        );
        let manifest = json!({ "schemaVersion": 2, "config": config, "layers": layers });
        write_blob(folder, MANIFEST, manifest.to_string().as_bytes())
    }

    /// The files of a docker archive, layers named by their number.
    pub(crate) fn docker_archive(&self, tags: &[&str]) -> Layer {
        let names: Vec<_> = (0..self.layers.len())
            .map(|index| format!("{index}/layer.tar"))
            .collect();
        let manifest = json!([{
            "Config": "config.json",
            "RepoTags": tags,
            "Layers": names,
        }]);
        let mut archive = Layer::new();
        for (name, layer) in names.iter().zip(&self.layers) {
            archive = archive.file(name, layer.clone());
        }
        archive
            .file("config.json", self.config.to_string())
            .file("manifest.json", manifest.to_string())
    }
}

/// The layer that most tests need: a program, and nothing else.
pub(crate) fn app() -> Layer {
    Layer::new().program("app", elf())
}

pub(crate) fn write_blob(folder: &Path, media_type: &str, bytes: &[u8]) -> Value {
    let digest = sha256(bytes);
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(blobs.join(digest.strip_prefix("sha256:").unwrap()), bytes).unwrap();
    json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
}

pub(crate) fn index(manifests: &[Value]) -> Value {
    json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests })
}

pub(crate) fn write_index(folder: &Path, manifests: &[Value]) {
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("index.json"), index(manifests).to_string()).unwrap();
    fs::write(
        folder.join("oci-layout"),
        json!({ "imageLayoutVersion": "1.0.0" }).to_string(),
    )
    .unwrap();
}

/// Writes an index as a blob of its own.
pub(crate) fn write_nested_index(folder: &Path, manifests: &[Value]) -> Value {
    write_blob(folder, INDEX, index(manifests).to_string().as_bytes())
}

/// A descriptor with a platform.
pub(crate) fn for_platform(mut descriptor: Value, os: &str, architecture: &str) -> Value {
    descriptor["platform"] = json!({ "os": os, "architecture": architecture });
    descriptor
}

/// A descriptor with a tag.
pub(crate) fn tagged(mut descriptor: Value, tag: &str) -> Value {
    descriptor["annotations"] = json!({ "org.opencontainers.image.ref.name": tag });
    descriptor
}
