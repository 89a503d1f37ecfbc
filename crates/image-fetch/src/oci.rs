//! Images in OCI registries: a manifest says which blob is the image.

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use crate::Progress;
use crate::attempts::{is_last, pause};
use crate::cache::Cache;
use crate::digest::Sha256;
use crate::error::FetchError;
use crate::http::{self, Server};
use crate::partial::Partial;
use crate::registry::client::Registry;
use crate::registry::{Layer, ManifestError, Reference};
use crate::web::Failure;

/// The layer that is the image: as a manifest says that was kept, or the registry.
pub(crate) async fn layer(registry: &mut Registry, cache: &Cache) -> Result<Layer, FetchError> {
    let reference = registry.reference().clone();
    if let Some(layer) = kept(&reference, cache) {
        return Ok(layer);
    }
    let manifest = manifest(registry).await?;
    let wrong = |source| FetchError::Manifest {
        location: reference.to_string(),
        source,
    };
    if let Some(wanted) = reference.digest() {
        let found = Sha256::of(&manifest);
        if found != wanted {
            return Err(wrong(ManifestError::Other(found)));
        }
    }
    let layer = Layer::of_manifest(&manifest).map_err(wrong)?;
    if let Some(digest) = reference.digest() {
        cache.keep_manifest(digest, &manifest);
    }
    Ok(layer)
}

/// The layer, if the address names a manifest that is here.
pub(crate) fn kept(reference: &Reference, cache: &Cache) -> Option<Layer> {
    let digest = reference.digest()?;
    let manifest = cache.manifest(digest)?;
    (Sha256::of(&manifest) == digest)
        .then(|| Layer::of_manifest(&manifest).ok())
        .flatten()
}

/// Reads what is missing of the image.
pub(crate) async fn read(
    mut registry: Registry,
    cache: &Cache,
    wanted: Sha256,
    partial: &mut Partial,
    progress: Progress<'_>,
) -> Result<(), FetchError> {
    let layer = layer(&mut registry, cache).await?;
    if layer.sha256 != wanted {
        return Err(FetchError::OtherLayer {
            location: partial.location.to_string(),
            found: layer.sha256,
            wanted,
        });
    }
    partial.expect(layer.size)?;
    let mut blob = Blob { registry, layer };
    http::read(&mut blob, partial, progress).await
}

async fn manifest(registry: &mut Registry) -> Result<Vec<u8>, FetchError> {
    let location = registry.reference().to_string();
    let (permission, whom) = registry.permission();
    let denied = |reason| FetchError::Denied {
        location: location.clone(),
        reason,
        permission,
        whom,
    };
    let mut failures = 0;
    loop {
        let reason = match registry.manifest().await {
            Ok((200, Some(manifest))) => return Ok(manifest),
            Ok((200, None)) => {
                return Err(FetchError::Manifest {
                    location,
                    source: ManifestError::TooLarge,
                });
            }
            Ok((404, _)) => return Err(FetchError::NotFound { location }),
            Ok((status @ (401 | 403), _)) => {
                return Err(denied(format!("the registry answers with status {status}")));
            }
            Ok((status, _)) => format!("the registry answers with status {status}"),
            Err(Failure::Denied(reason)) => return Err(denied(reason)),
            Err(Failure::Passing(reason)) => reason,
        };
        failures += 1;
        if is_last(failures) {
            return Err(FetchError::Interrupted {
                location,
                reason,
                bytes: 0,
            });
        }
        tracing::debug!(image = location, reason, "a manifest could not be read");
        pause(failures).await;
    }
}

/// The image in its registry. Each attempt asks the registry itself: where that
/// leads to, and what was shown there, may have expired.
struct Blob {
    registry: Registry,
    layer: Layer,
}

impl Server for Blob {
    async fn ask(&mut self, start: u64) -> Result<HttpResponse, Failure> {
        self.registry.blob(self.layer.sha256, start).await
    }

    fn permission(&self) -> (&'static str, &'static str) {
        self.registry.permission()
    }
}
