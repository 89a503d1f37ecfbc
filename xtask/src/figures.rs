//! `cargo xtask figures`: measures what SPECIFICATION.md promises.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};

use crate::{programs, stages};

/// Builds everything and runs the program that measures.
pub(crate) fn run(workspace: &Path) -> anyhow::Result<()> {
    stages::install_packages()?;
    let environment = programs::environment(workspace)?;
    let [.., (_, folder)] = &environment;
    let status = Command::new(folder.join("figures"))
        .envs(environment.iter().map(|(name, path)| (name, path)))
        .status()
        .context("cannot run the measurements")?;
    if !status.success() {
        bail!("a figure could not be measured; the message is above");
    }
    Ok(())
}
