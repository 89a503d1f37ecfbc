//! `cargo xtask sdks`: AWS's SDKs, unmodified, in an enclave.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use crate::{cache, demo, packages, programs, python};

const SCRIPT: &str = "tests/sdks/run.py";
/// What runs the SDK for JavaScript, and gets it.
const NEEDS: [(&str, &str); 2] = [("node", "nodejs"), ("npm", "npm")];

/// Has each SDK decrypt a secret under `sim`, and checks whom KMS refuses it.
pub(crate) fn run(workspace: &Path) -> anyhow::Result<()> {
    packages::install_programs(&NEEDS)?;
    let status = Command::new(python::get(workspace)?)
        .arg("-B")
        .arg(workspace.join(SCRIPT))
        .arg(programs::tested(workspace)?)
        .arg(demo::kernel(workspace, false)?)
        .arg(cache::folder()?)
        .arg(cache::SDK_FOR_RUST.get(workspace)?)
        .stdin(Stdio::null())
        .status()
        .context("cannot run the tests' Python")?;
    if !status.success() {
        bail!("an SDK does not work in an enclave; the message is above");
    }
    Ok(())
}
