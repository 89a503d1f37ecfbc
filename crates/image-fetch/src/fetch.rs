//! Makes an image be here, wherever it comes from.

use std::path::PathBuf;

use crate::cache::Cache;
use crate::error::FetchError;
use crate::location::{ImageConfig, Location};
use crate::registry::client::Registry;
use crate::web::Web;
use crate::{Progress, http, oci, partial, s3};

/// Where the image is, if it is here and nothing needs to be asked. A file that is
/// used where it is has not been checked.
pub fn find(image: &ImageConfig, cache: &Cache) -> Option<PathBuf> {
    let sha256 = match (&image.location, image.sha256) {
        (Location::File(path), _) => return path.is_file().then(|| path.clone()),
        (_, Some(sha256)) => sha256,
        (Location::Oci(reference), None) => oci::kept(reference, cache)?.sha256,
        (Location::S3(_) | Location::Http(_), None) => return None,
    };
    cache.find(sha256, image.size)
}

/// Makes sure that the image is here and whole, and says where. `region` is that of
/// requests to S3, unless environment or instance name it.
///
/// A file of this host stays where it is; without a digest it is not looked at. What
/// comes from elsewhere needs one: see [`Location::needs_sha256`]. Can be dropped at any
/// time: what has arrived is kept.
pub async fn fetch(
    image: &ImageConfig,
    region: Option<&str>,
    cache: &Cache,
    progress: Progress<'_>,
) -> Result<PathBuf, FetchError> {
    let sha256 = match (&image.location, image.sha256) {
        (Location::File(path), None) => return Ok(path.clone()),
        (Location::File(path), Some(sha256)) => {
            partial::check_file(path, image, sha256).await?;
            return Ok(path.clone());
        }
        (_, Some(sha256)) => sha256,
        (Location::Oci(reference), None) if reference.digest().is_some() => {
            let mut registry = Registry::new(reference.clone());
            oci::layer(&mut registry, cache).await?.sha256
        }
        (location, None) => {
            return Err(FetchError::Unpinned {
                location: location.to_string(),
            });
        }
    };
    if let Some(path) = cache.find(sha256, image.size) {
        return Ok(path);
    }
    let mut partial = cache.begin(image, sha256).await?;
    // Another process may have fetched it meanwhile.
    if let Some(path) = cache.find(sha256, image.size) {
        return Ok(path);
    }
    match &image.location {
        Location::S3(object) => s3::read(object, region, &mut partial, progress).await?,
        Location::Http(url) => {
            let mut page = http::Page {
                web: Web::new(),
                url,
            };
            http::read(&mut page, &mut partial, progress).await?;
        }
        Location::Oci(reference) => {
            let registry = Registry::new(reference.clone());
            oci::read(registry, cache, sha256, &mut partial, progress).await?;
        }
        Location::File(_) => {}
    }
    let path = partial.finish().await?;
    cache.tidy(&path);
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn images_from_elsewhere_need_a_digest() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(Some(folder.path().join("images")));
        for source in [
            "s3://bucket/key",
            "http://127.0.0.1:1/a.eif",
            "oci://localhost:1/payments:1.0",
        ] {
            let image = ImageConfig {
                location: source.parse().unwrap(),
                sha256: None,
                size: None,
                pcr8: None,
            };
            assert!(image.location.needs_sha256(), "{source}");
            let error = fetch(&image, None, &cache, &|_, _| {}).await.unwrap_err();
            assert!(matches!(error, FetchError::Unpinned { .. }), "{error}");
            assert_eq!(find(&image, &cache), None, "{source}");
        }
        assert!(!cache.directory().exists());
    }

    #[cfg(not(feature = "aws"))]
    #[tokio::test]
    async fn s3_is_refused_by_a_build_without_it() {
        let folder = tempfile::tempdir().unwrap();
        let image = ImageConfig {
            location: "s3://bucket/key".parse().unwrap(),
            sha256: "0".repeat(64).parse().ok(),
            size: None,
            pcr8: None,
        };
        let cache = Cache::new(Some(folder.path().to_owned()));
        let error = fetch(&image, None, &cache, &|_, _| {}).await.unwrap_err();
        assert!(matches!(error, FetchError::NoClient { .. }), "{error}");
        assert!(error.to_string().contains("has no AWS clients"), "{error}");
    }
}
