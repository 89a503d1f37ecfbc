//! Manifests of images in registries.

use serde::Deserialize;
use serde::de::IgnoredAny;
use thiserror::Error;

use super::MEDIA_TYPE;
use crate::digest::Sha256;

/// Most bytes of a manifest that is read: one of an image has less than 2 KiB.
pub const MAX_MANIFEST: usize = 256 * 1024;

/// Why a manifest names no enclave image.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ManifestError {
    /// It has more than [`MAX_MANIFEST`] bytes.
    #[error("its manifest has more than {MAX_MANIFEST} bytes")]
    TooLarge,
    /// It is not the one whose digest the address has.
    #[error(
        "its manifest has the SHA-256 {0}, so the registry or somebody on the way has altered it"
    )]
    Other(Sha256),
    /// It is no OCI manifest.
    #[error("its manifest cannot be read: {0}")]
    Malformed(String),
    /// It lists other manifests.
    #[error("it is a list of images for several platforms, and not an enclave image")]
    Index,
    /// It has not one layer.
    #[error(
        "it has {0} layers instead of one, so it is a container's image or an artifact of another kind"
    )]
    Layers(usize),
    /// The layer is something else.
    #[error("its layer is of the type {0:?} instead of {MEDIA_TYPE}")]
    MediaType(String),
    /// The layer's digest is not a SHA-256.
    #[error("its layer has the digest {0:?} instead of a SHA-256")]
    Digest(String),
}

/// The layer that is the enclave image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layer {
    /// The SHA-256 of the image.
    pub sha256: Sha256,
    /// Its size in bytes.
    pub size: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: u64,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    digest: String,
    size: u64,
}

impl Layer {
    /// The layer that the manifest names.
    pub fn of_manifest(manifest: &[u8]) -> Result<Self, ManifestError> {
        if manifest.len() > MAX_MANIFEST {
            return Err(ManifestError::TooLarge);
        }
        let document: Document = serde_json::from_slice(manifest)
            .map_err(|error| ManifestError::Malformed(error.to_string()))?;
        if document.schema_version != 2 {
            return Err(ManifestError::Malformed(format!(
                "it has schema {} instead of 2",
                document.schema_version
            )));
        }
        if document.manifests.is_some() {
            return Err(ManifestError::Index);
        }
        let layers = document.layers.unwrap_or_default();
        let [layer] = layers.as_slice() else {
            return Err(ManifestError::Layers(layers.len()));
        };
        if layer.media_type != MEDIA_TYPE {
            return Err(ManifestError::MediaType(shortened(&layer.media_type)));
        }
        let sha256 = layer
            .digest
            .strip_prefix("sha256:")
            .and_then(|digits| digits.parse().ok())
            .ok_or_else(|| ManifestError::Digest(shortened(&layer.digest)))?;
        Ok(Self {
            sha256,
            size: layer.size,
        })
    }
}

/// As much of a stranger's text as goes into a message.
fn shortened(text: &str) -> String {
    text.chars().take(100).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const DIGEST: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    fn manifest() -> Value {
        // As `oras push` writes it.
        json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "artifactType": MEDIA_TYPE,
            "config": {
                "mediaType": "application/vnd.oci.empty.v1+json",
                "digest": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
                "size": 2,
                "data": "e30=",
            },
            "layers": [{
                "mediaType": MEDIA_TYPE,
                "digest": format!("sha256:{DIGEST}"),
                "size": 52_428_800,
                "annotations": { "org.opencontainers.image.title": "payments.eif" },
            }],
            "annotations": { "org.opencontainers.image.created": "2026-01-01T00:00:00Z" },
        })
    }

    fn read(manifest: &Value) -> Result<Layer, ManifestError> {
        Layer::of_manifest(manifest.to_string().as_bytes())
    }

    #[test]
    fn the_one_layer_is_the_image() {
        let layer = read(&manifest()).unwrap();
        assert_eq!(layer.sha256.to_string(), DIGEST);
        assert_eq!(layer.size, 52_428_800);
    }

    #[test]
    fn what_names_no_enclave_image_is_refused() {
        let with = |key: &str, value: Value| {
            let mut manifest = manifest();
            manifest[key] = value;
            read(&manifest).unwrap_err()
        };
        let layer = |key: &str, value: Value| {
            let mut manifest = manifest();
            manifest["layers"][0][key] = value;
            read(&manifest).unwrap_err()
        };
        assert_eq!(with("manifests", json!([])), ManifestError::Index);
        assert_eq!(with("layers", json!([])), ManifestError::Layers(0));
        assert_eq!(with("layers", Value::Null), ManifestError::Layers(0));
        let twice = json!([manifest()["layers"][0], manifest()["layers"][0]]);
        assert_eq!(with("layers", twice), ManifestError::Layers(2));
        let tar = "application/vnd.oci.image.layer.v1.tar";
        assert_eq!(
            layer("mediaType", tar.into()),
            ManifestError::MediaType(tar.into())
        );
        assert_eq!(
            layer("digest", "sha256:00".into()),
            ManifestError::Digest("sha256:00".into())
        );
        for error in [
            with("schemaVersion", 1.into()),
            layer("size", (-1).into()),
            layer("digest", Value::Null),
            Layer::of_manifest(b"").unwrap_err(),
            Layer::of_manifest(b"[]").unwrap_err(),
        ] {
            assert!(matches!(error, ManifestError::Malformed(_)), "{error}");
            assert!(!error.to_string().contains('\n'), "{error}");
        }
        let huge = vec![b' '; MAX_MANIFEST + 1];
        assert_eq!(Layer::of_manifest(&huge), Err(ManifestError::TooLarge));
    }
}
