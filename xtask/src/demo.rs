//! `cargo xtask demo`: builds everything and tells the example's story.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use command_output::errln;

use crate::cache::{KERNEL, PREBUILT_KERNEL, QEMU, VSOCK_DEVICE};
use crate::{packages, programs};

/// Runs the demo under `sim`, or in QEMU where the first argument says so.
pub(crate) fn run(workspace: &Path, arguments: &[String]) -> anyhow::Result<()> {
    let (qemu, arguments) = match arguments.split_first() {
        Some((first, rest)) if first == "qemu" => (true, rest),
        Some((first, rest)) if first == "sim" => (false, rest),
        _ => (false, arguments),
    };
    if qemu {
        packages::install_needed()?;
    }
    let folder = programs::shown(workspace)?;
    let kernel = kernel(workspace, qemu)?;
    let mut command = Command::new(folder.join("demo"));
    for name in ["image-builder", "parent-agent", "enclave-init"] {
        command.arg(format!("--{name}")).arg(folder.join(name));
    }
    command
        .arg("--workload")
        .arg(folder.join("price-oracle"))
        .arg("--kernel")
        .arg(kernel);
    if qemu {
        command
            .args(["--hypervisor", "qemu", "--qemu-binary"])
            .arg(QEMU.get(workspace)?)
            .arg("--vhost-device-vsock")
            .arg(VSOCK_DEVICE.get(workspace)?);
    }
    let status = command
        .args(arguments)
        .status()
        .context("cannot run the demo")?;
    if !status.success() {
        bail!("the demo failed; its message is above");
    }
    Ok(())
}

/// The kernel that goes into the image. `sim` does not start it, so it is not
/// worth six minutes there: unless ours has been built, somebody else's does.
pub(crate) fn kernel(workspace: &Path, boots: bool) -> anyhow::Result<PathBuf> {
    if let Some(kernel) = std::env::var_os("ENCLAVE_KERNEL") {
        return Ok(kernel.into());
    }
    if let Some(kernel) = KERNEL.find(workspace)? {
        return Ok(kernel);
    }
    if !boots {
        match PREBUILT_KERNEL.get(workspace) {
            Ok(kernel) => {
                errln!(
                    "the image gets a prebuilt kernel, which sim does not start; `cargo xtask kernel` builds the one that QEMU boots"
                );
                return Ok(kernel);
            }
            Err(error) => errln!("there is no prebuilt kernel: {error:#}"),
        }
    }
    packages::install_needed()?;
    KERNEL.get(workspace)
}
