//! `cargo xtask bindings`: the verifier for C and Python, as their users meet it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use crate::{outside, python};

const FOLDER: &str = "bindings";

/// Builds the bindings and runs their tests.
pub(crate) fn test(workspace: &Path) -> anyhow::Result<()> {
    let c = [
        "test",
        "--release",
        "--locked",
        "--package",
        "attestation-c",
    ];
    outside::cargo(workspace, FOLDER, &c)?;
    wheel(workspace)
}

/// Builds the wheel and installs it in a folder of its own, which is the answer.
pub(crate) fn install(workspace: &Path) -> anyhow::Result<PathBuf> {
    let interpreter = python::get(workspace)?;
    let python = || command(workspace, &interpreter);
    let target = outside::target(workspace);
    let (wheels, installed) = (target.join("wheels"), target.join("site-packages"));
    for stale in [&wheels, &installed] {
        if stale.exists() {
            fs::remove_dir_all(stale).with_context(|| stale.display().to_string())?;
        }
    }
    let programs = interpreter.parent().context("Python has no folder")?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(programs.to_owned()).chain(std::env::split_paths(&path));
    // As users build it, but with the maturin that is pinned, and without a network.
    run(python()
        .args(["-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index"])
        .args(["--no-build-isolation", "--disable-pip-version-check"])
        .arg("--wheel-dir")
        .arg(&wheels)
        .arg(".")
        .env("PATH", std::env::join_paths(folders)?)
        .env("MATURIN_PEP517_ARGS", "--locked")
        .env("CARGO_TARGET_DIR", outside::target(workspace)))?;
    let wheel = fs::read_dir(&wheels)
        .and_then(|mut entries| entries.next().transpose())
        .with_context(|| wheels.display().to_string())?
        .with_context(|| format!("there is no wheel in {}", wheels.display()))?;
    run(python()
        .args(["-m", "pip", "install", "--quiet", "--no-index"])
        .args(["--disable-pip-version-check", "--target"])
        .arg(&installed)
        .arg(wheel.path()))?;
    Ok(installed)
}

/// Tests the wheel where it is installed.
fn wheel(workspace: &Path) -> anyhow::Result<()> {
    let interpreter = python::get(workspace)?;
    let python = || command(workspace, &interpreter);
    let installed = install(workspace)?;
    let mut types = python();
    types.args(["-m", "mypy", "--cache-dir", "/dev/null", "python", "tests"]);
    run(types.env("MYPYPATH", "python"))?;
    // The stubs against what they describe.
    let mut stubs = python();
    stubs.args(["-m", "mypy.stubtest", "nitro_attestation"]);
    run(stubs
        .env("MYPYPATH", &installed)
        .env("PYTHONPATH", &installed))?;
    let mut tests = python();
    tests.args([
        "-B",
        "-m",
        "pytest",
        "--quiet",
        "-p",
        "no:cacheprovider",
        "tests",
    ]);
    run(tests.env("PYTHONPATH", &installed))
}

/// The tests' Python, in the package's folder.
fn command(workspace: &Path, interpreter: &Path) -> Command {
    let mut command = Command::new(interpreter);
    command.current_dir(workspace.join(FOLDER).join("python"));
    command
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let program = Path::new(command.get_program()).display().to_string();
    let status = command
        .status()
        .with_context(|| format!("cannot run {program}"))?;
    let arguments: Vec<_> = command
        .get_args()
        .map(|word| word.to_string_lossy())
        .collect();
    ensure!(
        status.success(),
        "{program} {} failed; its messages are above",
        arguments.join(" ")
    );
    Ok(())
}
