//! Debian packages that builds, tests and measurements need.

use std::path::PathBuf;
use std::process::Command;

use anyhow::bail;
use command_output::errln;

/// What builds and tests need.
const NEEDED: &[&str] = &[
    "bc",
    "bison",
    "bzip2",
    "cpio",
    "dpkg-dev",
    "flex",
    "g++",
    "libcbor-dev",
    "libelf-dev",
    "libfdt-dev",
    "libglib2.0-dev",
    "libgnutls28-dev",
    "libpixman-1-dev",
    "libssl-dev",
    "ninja-build",
    "openssl",
    "patch",
    "pkg-config",
    "python3-venv",
    "qemu-system-data",
    "seabios",
    "shellcheck",
    "uidmap",
    "xz-utils",
];

/// Installs what builds and tests need.
pub(crate) fn install_needed() -> anyhow::Result<()> {
    install(NEEDED)
}

/// Installs the packages of programs that are not on the path.
pub(crate) fn install_programs(programs: &[(&str, &'static str)]) -> anyhow::Result<()> {
    let missing: Vec<_> = programs
        .iter()
        .filter(|(name, _)| on_path(name).is_none())
        .map(|(_, package)| *package)
        .collect();
    install(&missing)
}

/// A program on the path.
pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = std::env::split_paths(&path).map(|folder| folder.join(name));
    places.find(|place| place.is_file())
}

/// Installs the packages that are missing; needs root only then.
pub(crate) fn install(packages: &[&str]) -> anyhow::Result<()> {
    let missing: Vec<_> = packages
        .iter()
        .copied()
        .filter(|package| !is_installed(package))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    errln!("installing {}", missing.join(" "));
    let root = is_root();
    let apt = |arguments: &[&str]| -> anyhow::Result<bool> {
        let mut command = if root {
            Command::new("apt-get")
        } else {
            Command::new("sudo")
        };
        if !root {
            command.args(["-n", "apt-get"]);
        }
        let output = command
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .output()?;
        if !output.status.success() {
            errln!("{}", String::from_utf8_lossy(&output.stderr).trim_end());
        }
        Ok(output.status.success())
    };
    let install = [
        &["install", "-y", "--no-install-recommends"],
        missing.as_slice(),
    ]
    .concat();
    if apt(&["update"])? && apt(&install)? {
        return Ok(());
    }
    bail!(
        "packages are missing; run: sudo apt-get install --no-install-recommends {}",
        missing.join(" ")
    )
}

/// Whether the user is root.
pub(crate) fn is_root() -> bool {
    Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|output| output.stdout == b"0\n")
}

fn is_installed(package: &str) -> bool {
    Command::new("dpkg-query")
        .args(["--show", "--showformat=${db:Status-Status}", package])
        .output()
        .is_ok_and(|output| output.stdout == b"installed")
}
