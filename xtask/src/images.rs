//! `cargo xtask images`: container images as they are, as enclaves.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use crate::{cache, packages, programs};

const SCRIPT: &str = "tests/images/run.py";
/// What assembles the images, and a program that goes into one.
const NEEDS: [&str; 5] = [
    "buildah",
    "busybox-static",
    "debootstrap",
    "skopeo",
    "umoci",
];

/// What runs the tests of images by other makers, and nothing else.
const LAYERS: &str = "layers";

/// Assembles the images that are named, or all, and has each run, serve and stop.
pub(crate) fn run(workspace: &Path, arguments: &[String]) -> anyhow::Result<()> {
    if !packages::is_root() {
        bail!("assembling images needs root: run `cargo xtask images` as root");
    }
    packages::install_needed()?;
    packages::install(&NEEDS)?;
    let only_layers = matches!(arguments, [word] if word == LAYERS);
    if only_layers || arguments.is_empty() {
        layers(workspace)?;
    }
    if only_layers {
        return Ok(());
    }
    let status = Command::new("python3")
        .arg("-B")
        .arg(workspace.join(SCRIPT))
        .args(arguments)
        .envs(programs::machine(workspace)?)
        .env("ENCLAVE_TOOLKIT_CACHE", cache::folder()?)
        .stdin(Stdio::null())
        .status()
        .context("cannot run python3")?;
    match status.code() {
        Some(0) => Ok(()),
        Some(1) => bail!("an image does not work as an enclave; what failed is above"),
        _ => bail!("no image was tried ({status}); the reason is above"),
    }
}

/// The tests that are ignored elsewhere, because they need other makers of images, and root.
fn layers(workspace: &Path) -> anyhow::Result<()> {
    let status = Command::new("cargo")
        .args(["test", "--locked", "--package", "image-builder"])
        .args(["--test", "api", "--", "--ignored", "makers_"])
        .current_dir(workspace)
        .status()
        .context("cannot run cargo")?;
    if !status.success() {
        bail!("image-builder does not agree with other makers of images; what differs is above");
    }
    Ok(())
}
