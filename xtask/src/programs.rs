//! The workspace's own programs: as they are released, but for what the demo shows.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::cache::{EAR_VERIFIER, GO, KERNEL, QEMU, VSOCK_DEVICE};
use crate::{init, packages, python, target};

/// What the demo shows, and what shows it: packages, and the program of each.
const SHOWN: [&str; 5] = [
    "image-builder",
    "enclave-init",
    "parent-agent",
    "price-oracle",
    "demo",
];
/// All that tests and figures start: one set, since cargo compiles dependencies
/// anew for another choice of packages.
pub(crate) const TESTED: [&str; 10] = [
    "attest",
    "image-builder",
    "enclave-init",
    "parent-agent",
    "price-oracle",
    "demo",
    "control-plane",
    "terraform-runner",
    "enclavectl",
    "enclave-tests",
];

/// Builds what the demo shows, and gives its folder: not optimised, but for PID 1, without
/// clients of AWS, which it does not ask, and no other programs of these packages.
pub(crate) fn shown(workspace: &Path) -> anyhow::Result<PathBuf> {
    let programs = SHOWN.iter().filter(|name| **name != init::PACKAGE);
    let mut arguments = vec!["--no-default-features"];
    arguments.extend(programs.flat_map(|name| ["--bin", name]));
    build_with(workspace, &SHOWN, "demo", &arguments, &[init::PACKAGE])
}

/// Builds everything that tests and figures start, and gives its folder.
pub(crate) fn tested(workspace: &Path) -> anyhow::Result<PathBuf> {
    build(workspace, &TESTED)
}

/// Builds the programs of packages as they are released, and gives their folder.
///
/// Programs only: tests and examples bring dependencies whose features would make
/// the programs larger.
pub(crate) fn build(workspace: &Path, packages: &[&str]) -> anyhow::Result<PathBuf> {
    build_with(workspace, packages, "release", &["--bins"], &init::PROGRAMS)
}

/// The same in this profile, with these arguments of cargo's, and these programs of the
/// init's package.
fn build_with(
    workspace: &Path,
    packages: &[&str],
    profile: &str,
    arguments: &[&str],
    of_init: &[&str],
) -> anyhow::Result<PathBuf> {
    let others: Vec<_> = packages
        .iter()
        .copied()
        .filter(|name| *name != init::PACKAGE)
        .collect();
    cargo_build(workspace, &others, profile, arguments)?;
    // This program is in the folder of another profile, next to those looked for.
    let folder = target::above(2)?.join(profile);
    if packages.contains(&init::PACKAGE) {
        let built = init::build(workspace, of_init)?;
        for name in of_init {
            let (built, place) = (built.join(name), folder.join(name));
            replace(&place, &built)?;
        }
    }
    Ok(folder)
}

/// Puts a program in the place of another, unless that is the same: tests may be running
/// it. It is not written over: cargo links what it has built to the same contents.
fn replace(place: &Path, built: &Path) -> anyhow::Result<()> {
    let wanted = fs::read(built).with_context(|| built.display().to_string())?;
    if fs::read(place).is_ok_and(|found| found == wanted) {
        return Ok(());
    }
    let new = place.with_extension(format!("new-{}", std::process::id()));
    fs::copy(built, &new).with_context(|| built.display().to_string())?;
    fs::rename(&new, place).with_context(|| place.display().to_string())
}

fn cargo_build(
    workspace: &Path,
    packages: &[&str],
    profile: &str,
    arguments: &[&str],
) -> anyhow::Result<()> {
    let mut command = Command::new("cargo");
    command
        .args(["build", "--locked", "--profile", profile])
        .args(arguments)
        .current_dir(workspace);
    for package in packages {
        command.args(["--package", package]);
    }
    let status = command.status().context("cannot run cargo")?;
    if !status.success() {
        bail!("cargo build failed; its messages are above");
    }
    Ok(())
}

/// What programs that start enclaves find in the environment.
pub(crate) fn machine(workspace: &Path) -> anyhow::Result<Vec<(&'static str, PathBuf)>> {
    let programs = tested(workspace)?;
    Ok(vec![
        ("ENCLAVE_TEST_PROGRAMS", programs),
        ("ENCLAVE_TEST_KERNEL", KERNEL.get(workspace)?),
        ("ENCLAVE_TEST_QEMU", QEMU.get(workspace)?),
        ("ENCLAVE_TEST_VSOCK_DEVICE", VSOCK_DEVICE.get(workspace)?),
    ])
}

/// What tests check with: readers of what we write that are not ours, and emulators
/// of services, in their environment.
pub(crate) fn readers(workspace: &Path) -> anyhow::Result<Vec<(&'static str, PathBuf)>> {
    Ok(vec![
        ("ENCLAVE_TEST_EAR", EAR_VERIFIER.get(workspace)?),
        ("ENCLAVE_TEST_PYTHON", python::get(workspace)?),
    ])
}

/// What runs the clients of the local API, or compiles them.
pub(crate) fn languages(workspace: &Path) -> anyhow::Result<Vec<(&'static str, PathBuf)>> {
    packages::install_programs(&[("node", "nodejs")])?;
    let node = packages::on_path("node").context("there is no node on the path")?;
    Ok(vec![
        ("ENCLAVE_TEST_GO", GO.get(workspace)?),
        ("ENCLAVE_TEST_NODE", node),
    ])
}

/// Builds everything, and runs one of the programs that test or measure it.
pub(crate) fn run(workspace: &Path, program: &str, arguments: &[String]) -> anyhow::Result<()> {
    packages::install_needed()?;
    let environment = machine(workspace)?;
    let (_, folder) = environment.first().context("an empty environment")?;
    let status = Command::new(folder.join(program))
        .args(arguments)
        .envs(environment.iter().map(|(name, path)| (name, path)))
        .status()
        .with_context(|| format!("cannot run {program}"))?;
    if !status.success() {
        bail!("{program} failed; its message is above");
    }
    Ok(())
}
