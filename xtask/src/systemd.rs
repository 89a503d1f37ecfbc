//! `cargo xtask systemd`: runs the unit of docs/agent-restarts.md.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};

use crate::{programs, stages};

/// Builds everything and runs the program that shows it.
pub(crate) fn run(workspace: &Path) -> anyhow::Result<()> {
    stages::install_packages()?;
    let environment = programs::environment(workspace)?;
    let [.., (_, folder)] = &environment;
    let status = Command::new(folder.join("service-manager"))
        .envs(environment.iter().map(|(name, path)| (name, path)))
        .status()
        .context("cannot run the service manager")?;
    if !status.success() {
        bail!("the unit does not do what its page says; the message is above");
    }
    Ok(())
}
