//! Developer commands: `cargo xtask help` lists them.

#![forbid(unsafe_code)]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command's output"
)]

mod cache;
mod fuzz;
mod stages;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};

use crate::cache::{KERNEL, QEMU, VSOCK_DEVICE};

const HELP: &str = "\
usage: cargo xtask COMMAND

  setup   install what is missing, build the kernel, QEMU and the vsock device
  kernel  print the path of the enclave's kernel, building it if need be (6 minutes, once)
  qemu    print the path of QEMU with the nitro-enclave machine (5 minutes, once)
  fuzz [SECONDS] [TARGET]
          run the fuzz targets, or one, for some seconds each (10)
  test    everything that CI checks; installs what is missing
";

fn main() -> ExitCode {
    let command = std::env::args().nth(1).unwrap_or_else(|| "help".to_owned());
    match run(&command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: &str) -> anyhow::Result<()> {
    let root = workspace()?;
    match command {
        "setup" => {
            stages::install_packages()?;
            for artefact in [KERNEL, QEMU, VSOCK_DEVICE] {
                println!("{:<20} {}", artefact.name, artefact.get(&root)?.display());
            }
        }
        "kernel" => println!("{}", KERNEL.get(&root)?.display()),
        "qemu" => println!("{}", QEMU.get(&root)?.display()),
        "fuzz" => fuzz::run(&root, &std::env::args().skip(2).collect::<Vec<_>>())?,
        "test" => stages::test(&root)?,
        "help" | "--help" | "-h" => print!("{HELP}"),
        other => bail!("there is no command `{other}`\n\n{HELP}"),
    }
    Ok(())
}

/// The workspace's root: the folder above this crate's.
fn workspace() -> anyhow::Result<PathBuf> {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map(Path::to_owned)
        .context("this crate has no parent folder")
}
