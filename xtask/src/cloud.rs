//! `cargo xtask cloud`: the control plane on this machine, and its scenarios.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use crate::{demo, functions, programs, python};

/// What runs beside the functions.
const PACKAGES: [&str; 5] = [
    "image-builder",
    "enclave-init",
    "parent-agent",
    "control-plane",
    "enclave-tests",
];
/// The folder with the local cloud and its scenarios.
const FOLDER: &str = "tests/control-plane";

/// Tells the story, stays up, or shows many enclaves at once.
pub(crate) fn run(workspace: &Path, arguments: &[String]) -> anyhow::Result<()> {
    let parts = Parts::build(workspace)?;
    let mut command = Command::new(&parts.python);
    command
        .args(["-B", "-m", "local_cloud"])
        .args(arguments)
        .arg("--programs")
        .arg(&parts.programs)
        .arg("--functions")
        .arg(&parts.functions)
        .arg("--kernel")
        .arg(demo::kernel(workspace, false)?);
    check(&mut command, workspace, "the local cloud failed")
}

/// The scenarios, and a few enclaves at once.
pub(crate) fn test(workspace: &Path) -> anyhow::Result<()> {
    let parts = Parts::build(workspace)?;
    let mut scenarios = Command::new(&parts.python);
    scenarios
        .args(["-B", "-m", "pytest", "--quiet", "--tb=short"])
        .args(["-p", "no:cacheprovider", "scenarios"])
        .env("CONTROL_PLANE_PROGRAMS", &parts.programs)
        .env("CONTROL_PLANE_FUNCTIONS", &parts.functions);
    check(&mut scenarios, workspace, "a scenario failed")
}

struct Parts {
    python: PathBuf,
    programs: PathBuf,
    functions: PathBuf,
}

impl Parts {
    fn build(workspace: &Path) -> anyhow::Result<Self> {
        let python = python::get(workspace)?;
        let programs = programs::build(workspace, &PACKAGES)?;
        // The scenarios' security module: an example, since nobody deploys it.
        let status = Command::new("cargo")
            .args(["build", "--release", "--package", "control-plane"])
            .args(["--example", "enclave_documents"])
            .current_dir(workspace)
            .status()
            .context("cannot run cargo")?;
        if !status.success() {
            bail!("cargo build failed; its messages are above");
        }
        Ok(Self {
            python,
            programs,
            functions: functions::package(workspace)?,
        })
    }
}

fn check(command: &mut Command, workspace: &Path, failure: &str) -> anyhow::Result<()> {
    let status = command
        .current_dir(workspace.join(FOLDER))
        .stdin(Stdio::null())
        .status()
        .context("cannot run the tests' Python")?;
    if !status.success() {
        bail!("{failure}; its message is above");
    }
    Ok(())
}
