//! The control plane's Lambda functions as packages: `target/functions/NAME.zip`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::Context;
use command_output::outln;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

use crate::programs;

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

/// Packs the functions among these programs, and gives the packages' folder.
pub(crate) fn package(programs: &Path) -> anyhow::Result<PathBuf> {
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
    let folder = package(&programs::build(workspace, &["control-plane"])?)?;
    for name in FUNCTIONS {
        let package = folder.join(format!("{name}.zip"));
        let kib = fs::metadata(&package)?.len().div_ceil(1024);
        outln!("{kib:>6} KiB  {}", package.display());
    }
    Ok(())
}
