//! `cargo xtask cloud`: the control plane on this machine, its scenarios, and the
//! tutorials, of which one is about it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use crate::{bindings, demo, functions, init, packages, programs, python};

/// The folder with the local cloud and its scenarios.
const FOLDER: &str = "tests/control-plane";
/// What tutorials run besides our programs, and the packages that have it.
const TUTORIALS_NEED: [(&str, &str); 4] = [
    ("buildah", "buildah"),
    ("curl", "curl"),
    ("jq", "jq"),
    ("node", "nodejs"),
];

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

/// The scenarios, and a few enclaves at once; their times are written to `junit`.
pub(crate) fn test(workspace: &Path, junit: &Path) -> anyhow::Result<()> {
    let parts = Parts::build(workspace)?;
    let mut scenarios = parts.pytest("scenarios", junit);
    scenarios.env("CONTROL_PLANE_KERNEL", demo::kernel(workspace, false)?);
    check(&mut scenarios, workspace, "a scenario failed")
}

/// The tutorials of the manual; their times are written to `junit`.
pub(crate) fn tutorials(workspace: &Path, junit: &Path) -> anyhow::Result<()> {
    packages::install_programs(&TUTORIALS_NEED)?;
    let parts = Parts::build(workspace)?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(parts.programs.clone()).chain(std::env::split_paths(&path));
    let mut tutorials = parts.pytest("tutorials", junit);
    tutorials
        .env("PATH", std::env::join_paths(folders)?)
        .env("ENCLAVE_INIT", parts.programs.join(init::PACKAGE))
        .env("ENCLAVE_KERNEL", demo::kernel(workspace, false)?)
        .env("PYTHON", &parts.python)
        .env("PYTHONPATH", bindings::install(workspace)?);
    check(&mut tutorials, workspace, "a tutorial failed")
}

struct Parts {
    python: PathBuf,
    programs: PathBuf,
    functions: PathBuf,
}

impl Parts {
    /// The tests in one folder, with what they start.
    fn pytest(&self, folder: &str, junit: &Path) -> Command {
        let mut command = Command::new(&self.python);
        command
            .args(["-B", "-m", "pytest", "--quiet", "--tb=short"])
            .args(["-p", "no:cacheprovider", folder, "--junit-xml"])
            .arg(junit)
            .env("CONTROL_PLANE_PROGRAMS", &self.programs)
            .env("CONTROL_PLANE_FUNCTIONS", &self.functions);
        command
    }

    fn build(workspace: &Path) -> anyhow::Result<Self> {
        let python = python::get(workspace)?;
        let programs = programs::tested(workspace)?;
        Ok(Self {
            python,
            functions: functions::package(&programs)?,
            programs,
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
