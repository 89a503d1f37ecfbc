//! Where cargo puts what it builds.

use std::path::{Path, PathBuf};

use anyhow::Context;

/// Cargo's target folder.
pub(crate) fn folder() -> anyhow::Result<PathBuf> {
    // This program is `TARGET/TRIPLE/debug/xtask`.
    above(3)
}

/// The folder so many steps above this program.
pub(crate) fn above(steps: usize) -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("where this program is")?;
    let folder = own.ancestors().nth(steps);
    folder
        .map(Path::to_owned)
        .context("this program is in no target folder")
}
