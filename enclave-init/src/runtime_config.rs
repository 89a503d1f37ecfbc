//! What the agent gives at the start: measured, and handed to the workload.

use std::fs;

use aws_lc_rs::digest::{SHA384, digest};

use crate::error::{Doing, InitError};
use crate::mounts;
use crate::security_module::SecurityModule;
use crate::workload::RUNTIME_CONFIG_PATH;

/// Its name in a workload's own folder, which is at [`RUNTIME_CONFIG_PATH`].
const FILE: &str = "runtime-config";
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

/// Puts it where each of this many workloads finds it.
pub(crate) fn write(config: &[u8], workloads: usize) -> Result<(), InitError> {
    let path = |workload| mounts::own_folder(workload).join(FILE);
    let writing = || format!("writing {RUNTIME_CONFIG_PATH}");
    let first = path(0);
    fs::write(&first, config).doing(writing)?;
    for workload in 1..workloads {
        fs::hard_link(&first, path(workload)).doing(writing)?;
    }
    Ok(())
}
