//! `cargo xtask bindings`: the verifier for C and Python, as their users meet it.

use std::fs;
use std::path::Path;
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

/// Builds the wheel, installs it in a folder of its own, and tests it there.
fn wheel(workspace: &Path) -> anyhow::Result<()> {
    let interpreter = python::get(workspace)?;
    let folder = workspace.join(FOLDER).join("python");
    let python = || {
        let mut command = Command::new(&interpreter);
        command.current_dir(&folder);
        command
    };
    let target = outside::target(workspace);
    let (wheels, installed) = (target.join("wheels"), target.join("site-packages"));
    for stale in [&wheels, &installed] {
        if stale.exists() {
            fs::remove_dir_all(stale).with_context(|| stale.display().to_string())?;
        }
    }
    run(python()
        .args(["-m", "maturin", "build", "--release", "--locked", "--quiet"])
        .arg("--interpreter")
        .arg(&interpreter)
        .arg("--out")
        .arg(&wheels)
        .envs(outside::environment(workspace)))?;
    let wheel = fs::read_dir(&wheels)
        .and_then(|mut entries| entries.next().transpose())
        .with_context(|| wheels.display().to_string())?
        .with_context(|| format!("there is no wheel in {}", wheels.display()))?;
    run(python()
        .args(["-m", "pip", "install", "--quiet", "--no-index"])
        .args(["--disable-pip-version-check", "--target"])
        .arg(&installed)
        .arg(wheel.path()))?;
    let mut types = python();
    types.args(["-m", "mypy", "--cache-dir", "/dev/null", "python", "tests"]);
    run(types.env("MYPYPATH", "python"))?;
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

fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().context("cannot run Python")?;
    let arguments: Vec<_> = command
        .get_args()
        .map(|word| word.to_string_lossy())
        .collect();
    ensure!(
        status.success(),
        "python {} failed; its messages are above",
        arguments.join(" ")
    );
    Ok(())
}
