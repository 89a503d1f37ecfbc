//! Crates outside of the workspace that are linked dynamically: the benchmark,
//! and the bindings. They share a target folder.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

/// Runs cargo in a crate's folder.
pub(crate) fn cargo(workspace: &Path, folder: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let status = Command::new("cargo")
        .args(arguments)
        .current_dir(workspace.join(folder))
        .envs(environment(workspace))
        .status()
        .context("cannot run cargo")?;
    ensure!(
        status.success(),
        "cargo {} failed in {folder}; its messages are above",
        arguments.join(" ")
    );
    Ok(())
}

/// What cargo finds in the environment. An empty `RUSTFLAGS` stands before the
/// workspace's own, which link statically.
fn environment(workspace: &Path) -> [(&'static str, PathBuf); 2] {
    [
        ("RUSTFLAGS", PathBuf::new()),
        ("CARGO_TARGET_DIR", target(workspace)),
    ]
}

/// The folder of programs that were built with `--release`.
pub(crate) fn programs(workspace: &Path) -> anyhow::Result<PathBuf> {
    let target = target(workspace);
    // The workspace's configuration names a target: its folder is between.
    let triple = crate::fuzz::host_triple()?;
    Ok(target.join(triple).join("release"))
}

/// The target folder.
pub(crate) fn target(workspace: &Path) -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR").filter(|folder| !folder.is_empty()) {
        Some(folder) => workspace.join(folder).join("dynamic"),
        None => workspace.join("target/dynamic"),
    }
}
