//! The control plane's Lambda functions as packages: `target/functions/NAME.zip`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

/// The functions: each is a binary of the crate `control-plane`.
pub(crate) const FUNCTIONS: [&str; 5] = [
    "trigger",
    "validation",
    "attestation-gate",
    "error-handler",
    "status-monitor",
];

/// What the runtimes `provided.*` start.
const ENTRY: &str = "bootstrap";
const EXECUTABLE: u32 = 0o755;

/// Builds the packages, and gives their folder.
pub(crate) fn package(workspace: &Path) -> anyhow::Result<PathBuf> {
    let programs = build(workspace)?;
    let target = programs
        .ancestors()
        .nth(2)
        .context("the programs are in no target folder")?;
    let folder = target.join("functions");
    fs::create_dir_all(&folder)?;
    for name in FUNCTIONS {
        let package = folder.join(format!("{name}.zip"));
        write(&programs.join(name), &package)
            .with_context(|| format!("cannot write {}", package.display()))?;
    }
    Ok(folder)
}

/// Builds the binaries in the release profile, and gives their folder.
pub(crate) fn build(workspace: &Path) -> anyhow::Result<PathBuf> {
    let mut command = Command::new("cargo");
    command
        .args(["build", "--release", "--package", "control-plane"])
        .current_dir(workspace);
    for name in FUNCTIONS {
        command.args(["--bin", name]);
    }
    let status = command.status().context("cannot run cargo")?;
    if !status.success() {
        bail!("cargo build failed; its messages are above");
    }
    // This program is in the folder of another profile, next to the one looked for.
    let own = std::env::current_exe().context("where this program is")?;
    let folder = own
        .ancestors()
        .nth(2)
        .context("this program is in no target folder")?
        .join("release");
    Ok(folder)
}

/// The same program makes the same package: no time is in it.
fn write(program: &Path, package: &Path) -> anyhow::Result<()> {
    let mut input = File::open(program).with_context(|| program.display().to_string())?;
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Deflated)
        .compression_level(Some(9))
        .last_modified_time(DateTime::default())
        .unix_permissions(EXECUTABLE);
    let mut output = ZipWriter::new(File::create(package)?);
    output.start_file(ENTRY, options)?;
    std::io::copy(&mut input, &mut output)?;
    output.finish()?;
    Ok(())
}

/// Builds the packages and says how large they are.
pub(crate) fn run(workspace: &Path) -> anyhow::Result<()> {
    let folder = package(workspace)?;
    for name in FUNCTIONS {
        let package = folder.join(format!("{name}.zip"));
        let mib = fs::metadata(&package)?.len() as f64 / f64::from(1 << 20);
        println!("{mib:>5.2} MiB  {}", package.display());
    }
    Ok(())
}
