//! `cargo xtask release`: the files of a release.

use std::collections::BTreeSet;
use std::env::consts::ARCH;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use command_output::out;

use crate::functions::FUNCTIONS;
use crate::{functions, init, programs, target};

/// The packages of the programs that are released: each has its package's name, but for
/// [`init::COMMAND`].
const PROGRAMS: [&str; 5] = [
    "attest",
    "image-builder",
    init::PACKAGE,
    "parent-agent",
    "enclavectl",
];

/// What a release must consist of, whatever was built and copied; users and other
/// scripts know these names.
const FILES: [&str; 14] = [
    "SHA256SUMS",
    "attest-VERSION-ARCH-linux",
    "attestation-gate.zip",
    "enclave-init-VERSION-ARCH-linux",
    "enclave-kms-VERSION-ARCH-linux",
    "enclavectl-VERSION-ARCH-linux",
    "error-handler.zip",
    "image-builder-VERSION-ARCH-linux",
    "parent-agent-VERSION-ARCH-linux",
    "release.tfvars",
    "status-monitor.zip",
    "terraform-VERSION.tar.gz",
    "trigger.zip",
    "validation.zip",
];

/// The folder within the workspace.
const FOLDER: &str = "release";
const USAGE: &str = "cargo xtask release VERSION | --dry-run";

/// Makes the files of a release, or goes through the same steps with programs that
/// tests have built.
pub(crate) fn run(workspace: &Path, arguments: &[String]) -> anyhow::Result<()> {
    match arguments {
        [option] if option == "--dry-run" => rehearse(workspace),
        [version] if version.starts_with('v') => {
            let folder = workspace.join(FOLDER);
            build(workspace)?.assemble(workspace, version, &folder)?;
            out!("{}", fs::read_to_string(folder.join("SHA256SUMS"))?);
            Ok(())
        }
        _ => anyhow::bail!("say which version, as in v1.2.3: {USAGE}"),
    }
}

/// The same steps with the programs of the tests, which other packages were built
/// with: what is in them is not what is released, but all of them are there.
pub(crate) fn rehearse(workspace: &Path) -> anyhow::Result<()> {
    let folder = programs::tested(workspace)?;
    let built = Built {
        functions: functions::package(&folder)?,
        programs: folder,
    };
    let scratch = target::folder()?.join("release-rehearsal");
    if scratch.exists() {
        fs::remove_dir_all(&scratch).with_context(|| scratch.display().to_string())?;
    }
    built.assemble(workspace, "v0.0.0", &scratch)?;
    fs::remove_dir_all(&scratch).with_context(|| scratch.display().to_string())
}

/// What is copied.
struct Built {
    programs: PathBuf,
    functions: PathBuf,
}

fn build(workspace: &Path) -> anyhow::Result<Built> {
    let folder = programs::build(workspace, &PROGRAMS)?;
    let functions = programs::build(workspace, &["control-plane"])?;
    Ok(Built {
        programs: folder,
        functions: functions::package(&functions)?,
    })
}

impl Built {
    /// Writes the files of this version into a new folder, and checks them.
    fn assemble(&self, workspace: &Path, version: &str, folder: &Path) -> anyhow::Result<()> {
        fs::create_dir(folder).with_context(|| folder.display().to_string())?;
        let copy = |from: &Path, name: &str| {
            fs::copy(from, folder.join(name)).with_context(|| from.display().to_string())
        };
        for name in PROGRAMS.into_iter().chain([init::COMMAND]) {
            let program = self.programs.join(name);
            is_static(&program)?;
            copy(&program, &format!("{name}-{version}-{ARCH}-linux"))?;
        }
        for name in FUNCTIONS {
            let name = format!("{name}.zip");
            copy(&self.functions.join(&name), &name)?;
        }
        output(
            Command::new("tar")
                .args(["--create", "--gzip", "--sort=name", "--mtime=@0"])
                .args(["--owner=0", "--group=0", "--file"])
                .arg(folder.join(format!("terraform-{version}.tar.gz")))
                .arg("terraform")
                .current_dir(workspace),
        )?;
        // What `terraform apply` is told of this release: docs/terraform.md.
        let agent = sums(folder, &[format!("parent-agent-{version}-{ARCH}-linux")])?;
        let agent = agent.split(' ').next().unwrap_or_default();
        let inputs = format!(
            "terraform_runner_image_version = \"{version}\"\nagent_sha256                   = \"{agent}\"\n"
        );
        fs::write(folder.join("release.tfvars"), inputs)?;
        let names: Vec<_> = files(folder)?.into_iter().collect();
        fs::write(folder.join("SHA256SUMS"), sums(folder, &names)?)?;
        let expected = FILES.map(|name| name.replace("VERSION", version).replace("ARCH", ARCH));
        compare(&BTreeSet::from(expected), &files(folder)?)
    }
}

/// The names of the files in a folder.
fn files(folder: &Path) -> anyhow::Result<BTreeSet<String>> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect()
}

fn compare(expected: &BTreeSet<String>, found: &BTreeSet<String>) -> anyhow::Result<()> {
    let words = |set: Vec<&String>| set.into_iter().cloned().collect::<Vec<_>>().join(" ");
    let missing = words(expected.difference(found).collect());
    let unknown = words(found.difference(expected).collect());
    ensure!(
        missing.is_empty() && unknown.is_empty(),
        "the release has other files than the list in xtask/src/release.rs; missing: {missing}; not in the list: {unknown}"
    );
    Ok(())
}

/// A released program runs anywhere: it asks for no interpreter and no library.
fn is_static(program: &Path) -> anyhow::Result<()> {
    let headers = output(
        Command::new("readelf")
            .args(["--wide", "--program-headers", "--dynamic"])
            .arg(program),
    )?;
    ensure!(
        !headers.contains("INTERP") && !headers.contains("(NEEDED)"),
        "{} is linked dynamically",
        program.display()
    );
    Ok(())
}

/// The lines of `sha256sum` about files in a folder.
fn sums(folder: &Path, names: &[String]) -> anyhow::Result<String> {
    output(
        Command::new("sha256sum")
            .arg("--")
            .args(names)
            .current_dir(folder),
    )
}

/// What a program prints.
fn output(command: &mut Command) -> anyhow::Result<String> {
    let program = Path::new(command.get_program()).display().to_string();
    let output = command
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    ensure!(
        output.status.success(),
        "{program} failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn release_files_that_are_missing_or_unknown_are_named() {
        let set = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        assert!(compare(&set(&["a", "b"]), &set(&["b", "a"])).is_ok());
        let error = compare(&set(&["a", "b"]), &set(&["b", "c"])).unwrap_err();
        let text = error.to_string();
        assert!(text.ends_with("missing: a; not in the list: c"), "{text}");
    }
}
