//! Whether PID 1 is the same bytes wherever it is built.

use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};
use command_output::outln;

use crate::init::{PACKAGE, Place};

/// Builds PID 1 twice, the second time in another folder, with other homes of cargo and
/// of the user, and compares.
pub(crate) fn run(workspace: &Path) -> anyhow::Result<()> {
    let here = Place::here(workspace)?;
    let first = here.build(&[PACKAGE])?.join(PACKAGE);
    let folder = std::env::temp_dir().join(format!("enclave-init-{}", std::process::id()));
    let second = here.elsewhere(&folder)?.build(&[PACKAGE])?.join(PACKAGE);
    let read = |path: &Path| fs::read(path).with_context(|| path.display().to_string());
    let (one, other) = (read(&first)?, read(&second)?);
    let differs = one.iter().zip(&other).position(|(one, other)| one != other);
    ensure!(
        one == other,
        "two builds of {PACKAGE} differ from byte {} on: {} ({} bytes) and {} ({} bytes)",
        differs.unwrap_or(one.len().min(other.len())),
        first.display(),
        one.len(),
        second.display(),
        other.len()
    );
    fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
    outln!("two builds of {PACKAGE} are the same {} bytes", one.len());
    Ok(())
}
