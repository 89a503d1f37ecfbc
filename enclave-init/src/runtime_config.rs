//! What the agent gives at the start: measured, and handed to the workload.

use std::fs;

use aws_lc_rs::digest::{SHA384, digest};

use crate::error::{Doing, InitError};
use crate::mounts;
use crate::security_module::SecurityModule;
use crate::workload::RUNTIME_CONFIG_PATH;

/// The register that the runtime configuration is measured into.
const RUNTIME_CONFIG_PCR: u16 = 16;

/// Has every document show which configuration the agent gave. The register is
/// locked, so that nothing that runs later can pretend another.
pub(crate) async fn measure(nsm: &SecurityModule, config: &[u8]) -> Result<(), InitError> {
    let digest = digest(&SHA384, config);
    nsm.run(move |nsm| {
        nsm.extend_pcr(RUNTIME_CONFIG_PCR, digest.as_ref())?;
        nsm.lock_pcr(RUNTIME_CONFIG_PCR)
    })
    .await?;
    Ok(())
}

/// Puts it where the workload finds it.
pub(crate) fn write(config: &[u8]) -> Result<(), InitError> {
    let path = mounts::in_scratch(RUNTIME_CONFIG_PATH);
    fs::create_dir_all(path.parent().unwrap_or(&path))
        .and_then(|()| fs::write(&path, config))
        .doing(|| format!("writing {RUNTIME_CONFIG_PATH}"))
}
