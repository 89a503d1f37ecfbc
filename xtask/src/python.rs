//! The Python environment of the tests: independent readers of what we write,
//! and stand-ins for services that we call.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, bail};
use command_output::errln;

use crate::cache::{self, Fnv};

/// What is installed, at pinned versions.
const REQUIREMENTS: &str = "tests/python/requirements.txt";

/// The environment's interpreter; the environment is made if these requirements
/// and this Python have none yet.
///
/// It is made where it stays, since it holds its own path; a last file says that
/// it is whole.
pub(crate) fn get(workspace: &Path) -> anyhow::Result<PathBuf> {
    let requirements = workspace.join(REQUIREMENTS);
    let mut key = Fnv::new();
    key.update(&fs::read(&requirements).with_context(|| requirements.display().to_string())?);
    let version = Command::new("python3")
        .arg("--version")
        .output()
        .context("cannot run python3")?;
    key.update(&version.stdout);

    let cache = cache::folder()?;
    fs::create_dir_all(&cache)?;
    let folder = cache.join(format!("python-{key}"));
    let interpreter = folder.join("bin/python");
    let whole = folder.join("whole");
    if whole.exists() {
        return Ok(interpreter);
    }
    let lock = folder.with_extension("lock");
    let lock = File::create(&lock).with_context(|| lock.display().to_string())?;
    lock.lock()
        .context("cannot wait for another installation of the same environment")?;
    if whole.exists() {
        return Ok(interpreter);
    }
    errln!("installing the tests' Python packages (about 1 minute, once per machine)");
    let start = Instant::now();
    run(Command::new("python3")
        .args(["-m", "venv", "--clear"])
        .arg(&folder))?;
    run(Command::new(&interpreter)
        .args(["-m", "pip", "install", "--quiet"])
        .args(["--disable-pip-version-check", "--requirement"])
        .arg(&requirements))?;
    File::create(&whole)?;
    errln!("installed them in {} s", start.elapsed().as_secs());
    Ok(interpreter)
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let program = Path::new(command.get_program()).display().to_string();
    let status = command
        .status()
        .with_context(|| format!("cannot run {program}"))?;
    if !status.success() {
        bail!(
            "the tests' Python environment cannot be made ({program}: {status}); the messages are above"
        );
    }
    Ok(())
}
