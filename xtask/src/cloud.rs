//! `cargo xtask cloud`: the control plane on this machine, and its scenarios.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use crate::{demo, functions, programs, python};

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

/// The scenarios, and a few enclaves at once; their times are written to `junit`.
pub(crate) fn test(workspace: &Path, junit: &Path) -> anyhow::Result<()> {
    let parts = Parts::build(workspace)?;
    let mut scenarios = Command::new(&parts.python);
    scenarios
        .args(["-B", "-m", "pytest", "--quiet", "--tb=short"])
        .args(["-p", "no:cacheprovider", "scenarios", "--junit-xml"])
        .arg(junit)
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
