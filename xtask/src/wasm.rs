//! The verifier for WebAssembly: without its default features, as a browser's program
//! uses it that brings a `Crypto` of its own.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use command_output::outln;

const TARGET: &str = "wasm32-unknown-unknown";

/// Checks that it compiles. A toolchain that has no standard library for the target, and
/// no rustup that can get it, checks nothing.
pub(crate) fn check(workspace: &Path) -> anyhow::Result<()> {
    if !is_installed()? && !install() {
        outln!("not checked: this toolchain has no {TARGET}, and `rustup target add` failed");
        return Ok(());
    }
    let status = Command::new("cargo")
        .args(["check", "--quiet", "--locked", "--package", "attestation"])
        .args(["--no-default-features", "--features", "policy-files"])
        .args(["--target", TARGET])
        .current_dir(workspace)
        .status()
        .context("cannot run cargo")?;
    ensure!(
        status.success(),
        "attestation does not compile for {TARGET}; the messages are above"
    );
    Ok(())
}

fn is_installed() -> anyhow::Result<bool> {
    let output = Command::new("rustc")
        .args(["--print", "target-libdir", "--target", TARGET])
        .output()
        .context("cannot run rustc")?;
    let folder = String::from_utf8(output.stdout).context("rustc's answer is not UTF-8")?;
    Ok(output.status.success() && PathBuf::from(folder.trim_end()).is_dir())
}

fn install() -> bool {
    Command::new("rustup")
        .args(["target", "add", TARGET])
        .status()
        .is_ok_and(|status| status.success())
}
