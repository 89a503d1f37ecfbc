//! `cargo xtask terraform` and `iam`: everything about Terraform's files that can be found
//! out without AWS.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};

/// Makes its own environment in the cache; its arguments are pytest's.
const CHECK: &str = "tests/terraform/check";
/// Evaluates the policies alone, and prints the table.
const EVALUATE: &str = "tests/iam/check";

/// Runs the checks, or those that the arguments choose.
pub(crate) fn check(workspace: &Path, arguments: &[String]) -> anyhow::Result<()> {
    run(workspace, CHECK, arguments)
}

/// Evaluates the policies that Terraform renders.
pub(crate) fn iam(workspace: &Path, arguments: &[String]) -> anyhow::Result<()> {
    run(workspace, EVALUATE, arguments)
}

fn run(workspace: &Path, program: &str, arguments: &[String]) -> anyhow::Result<()> {
    let status = Command::new(workspace.join(program))
        .args(arguments)
        .current_dir(workspace)
        .status()
        .with_context(|| format!("cannot run {program}; is python3 installed?"))?;
    ensure!(status.success(), "{program} failed; its messages are above");
    Ok(())
}
