//! `cargo xtask terraform`: everything about Terraform's files that can be found out
//! without AWS.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};

/// Makes its own environment in the cache; its arguments are pytest's.
const CHECK: &str = "tests/terraform/check";

/// Runs the checks, or those that the arguments choose.
pub(crate) fn check(workspace: &Path, arguments: &[String]) -> anyhow::Result<()> {
    let status = Command::new(workspace.join(CHECK))
        .args(arguments)
        .current_dir(workspace)
        .status()
        .with_context(|| format!("cannot run {CHECK}; is python3 installed?"))?;
    ensure!(status.success(), "{CHECK} failed; its messages are above");
    Ok(())
}
