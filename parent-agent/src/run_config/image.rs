//! Getting the image of a configuration, and checking it.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use enclave_host::duration::milliseconds;
use enclave_host::image::Image;
use image_fetch::{Cache, fetch as fetch_to};
use time::OffsetDateTime;
use tokio::time::Instant;
use tracing::warn;

use crate::config::EnclaveConfig;
use crate::error::Error;
use crate::report::{Report, Reporter};

/// Progress is reported no more often than this.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// Fetches the image into the folder of images, if it is not here.
pub(super) async fn fetch(
    folder: Option<PathBuf>,
    enclave: &EnclaveConfig,
    region: Option<&str>,
    reporter: &Reporter,
) -> Result<PathBuf, Error> {
    let cache = Cache::new(folder);
    let source = enclave.image.location.to_string();
    let start = Instant::now();
    let interval = milliseconds(PROGRESS_INTERVAL);
    let next = AtomicU64::new(0);
    let progress = |bytes: u64, total: Option<u64>| {
        let now = milliseconds(start.elapsed());
        let due = next.load(Ordering::Relaxed);
        if now >= due || total == Some(bytes) {
            next.store(now + interval, Ordering::Relaxed);
            reporter.report(&Report::Fetching {
                source: &source,
                bytes,
                total,
            });
        }
    };
    Ok(fetch_to(&enclave.image, region, &cache, &progress).await?)
}

/// Whether the image is signed by whom the configuration names.
pub(super) fn check_signer(enclave: &EnclaveConfig, image: &Image) -> Result<(), Error> {
    let Some(wanted) = enclave.image.pcr8 else {
        return Ok(());
    };
    let found = image.measurements().pcr8;
    if found == Some(wanted) {
        return Ok(());
    }
    Err(Error::Signer {
        image: enclave.image.location.to_string(),
        found: found.map_or_else(
            || "absent, since nobody signed it,".to_owned(),
            |pcr| pcr.to_string(),
        ),
        wanted: wanted.to_string(),
    })
}

/// Says if the certificate that the image is signed with is not valid now. That is no reason
/// not to start it: whom it proves, it proves by PCR8, and a service must not stay down for a
/// date that passed while it ran.
pub(super) fn check_certificate(image: &Image) {
    let problem = image
        .certificate()
        .and_then(|certificate| certificate.problem_at(OffsetDateTime::now_utc()));
    if let Some(problem) = problem {
        warn!(
            image = %image.path().display(),
            problem,
            "the certificate that the image is signed with is not valid: sign the image with a new one"
        );
    }
}

/// Reads and checks the image without holding up the runtime.
pub(super) async fn open(path: PathBuf) -> Result<Image, Error> {
    let opened = tokio::task::spawn_blocking(move || Image::open(&path)).await;
    match opened {
        Ok(image) => Ok(image?),
        Err(error) => Err(Error::system("the image cannot be read")(error.into())),
    }
}
