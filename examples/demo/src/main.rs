//! From a container image to an attested, running, logging enclave, and back
//! to nothing, on one machine: what `cargo xtask demo` runs.
//!
//! The enclave is started by `parent-agent`: under `sim`, which runs the image's
//! own init and file system in namespaces with a software NSM, or in QEMU's
//! `nitro-enclave` machine. Everything else is the toolkit as it is deployed.
//!
//! Exit codes: 0 everything was shown, 1 something failed, 2 wrong usage.

#![forbid(unsafe_code)]

mod agent;
mod calls;
mod carrier;
mod images;
mod parent;
mod prices;
mod proof;
mod runs;
mod scene;
mod screen;
mod secret;
mod service;
mod story;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::{Parser, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};

use crate::agent::Agent;
use crate::screen::Screen;

/// Builds, starts, uses, attests and stops the price oracle's enclave.
///
/// Exit codes: 0 everything was shown, 1 something failed, 2 wrong usage.
#[derive(Debug, Parser)]
struct Cli {
    /// The `image-builder` program.
    #[arg(long, value_name = "PATH")]
    image_builder: PathBuf,
    /// The `parent-agent` program.
    #[arg(long, value_name = "PATH")]
    parent_agent: PathBuf,
    /// The `enclave-init` program that goes into the image.
    #[arg(long, value_name = "PATH")]
    enclave_init: PathBuf,
    /// The kernel that goes into the image.
    #[arg(long, value_name = "PATH")]
    kernel: PathBuf,
    /// The `price-oracle` program that goes into the image.
    #[arg(long, value_name = "PATH")]
    workload: PathBuf,
    /// What runs the enclave.
    #[arg(long, value_enum, default_value = "sim")]
    hypervisor: Hypervisor,
    /// QEMU with the nitro-enclave machine; for `--hypervisor qemu`.
    #[arg(long, value_name = "PATH", default_value = "qemu-system-x86_64")]
    qemu_binary: PathBuf,
    /// The vsock device; for `--hypervisor qemu`.
    #[arg(long, value_name = "PATH", default_value = "vhost-device-vsock")]
    vhost_device_vsock: PathBuf,
    /// Keep the folder with the images and measurements, and say where it is.
    #[arg(long)]
    keep: bool,
}

/// What runs the enclave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Hypervisor {
    /// Namespaces, Unix sockets and the software NSM.
    Sim,
    /// QEMU's `nitro-enclave` machine.
    Qemu,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let cli: Cli = match command_output::parse("demo", 1) {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    let screen = Arc::new(Screen::new());
    let code = match run(&cli, &screen).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            screen::failure(&error);
            ExitCode::FAILURE
        }
    };
    command_output::end("demo", code, 1)
}

async fn run(cli: &Cli, screen: &Arc<Screen>) -> anyhow::Result<()> {
    let folder = tempfile::Builder::new()
        .prefix("enclave-demo-")
        .tempdir()
        .context("no temporary folder")?;
    // Outside of the story, so that it is stopped however the story ends.
    let mut agent = None;
    let result = tokio::select! {
        result = story::tell(cli, folder.path(), &mut agent, screen) => result,
        result = interrupted() => result,
    };
    if let Some(agent) = agent {
        Agent::end(agent).await;
    }
    if cli.keep {
        let folder = folder.keep();
        screen.note(&format!(
            "the images and measurements are in {}",
            folder.display()
        ));
    }
    result
}

/// Ends with an error when somebody wants the demo to stop.
async fn interrupted() -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be awaited")?;
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be awaited")?;
    tokio::select! {
        _ = interrupt.recv() => bail!("interrupted; everything that was started has been stopped"),
        _ = terminate.recv() => bail!("terminated; everything that was started has been stopped"),
    }
}
