//! Step `image`: the enclaves' images, by digest.

use super::{Check, Outcome, Setup};

pub(super) fn check(setup: &Setup<'_>) -> Check {
    let mut missing = Vec::new();
    for enclave in &setup.config.enclaves {
        if image_fetch::find(&enclave.image, &setup.cache).is_none() {
            missing.push(enclave.image.location.to_string());
        }
    }
    if missing.is_empty() {
        let folder = setup.cache.directory().display();
        return Check::Done(format!("every image is here, in {folder}"));
    }
    Check::Todo(format!("fetch {}", missing.join(", ")))
}

pub(super) fn apply(setup: &Setup<'_>) -> Outcome<()> {
    for enclave in &setup.config.enclaves {
        let region = setup.config.region.as_deref();
        let fetched = image_fetch::fetch(&enclave.image, region, &setup.cache, &|_, _| {});
        setup
            .runtime
            .block_on(fetched)
            .map_err(|error| error.to_string())?;
    }
    Ok(())
}
