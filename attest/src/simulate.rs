//! `attest simulate`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, anyhow};
use attestation::{ImageMeasurements, read_measurements};
use clap::Args;
use command_output::errln;
use measurements::Measurements;
use software_nsm::{Identity, SoftwareNsm, TestRoot, serve};
use tokio::signal::unix::{SignalKind, signal};

use crate::failure::{Failure, failed, usage};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The socket to create.
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,
    /// Write the root certificate, PEM, to this file.
    #[arg(long, value_name = "FILE")]
    root: PathBuf,
    /// The image's measurements; without them the enclave is in debug mode.
    #[arg(long, value_name = "FILE")]
    measurements: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let measurements = arguments
        .measurements
        .as_deref()
        .map(measurements)
        .transpose()
        .map_err(usage)?;
    simulate(arguments, measurements)
        .map(|()| ExitCode::SUCCESS)
        .map_err(failed)
}

/// The measurements of an enclave's image.
fn measurements(file: &Path) -> anyhow::Result<Measurements> {
    match read_measurements(file)? {
        ImageMeasurements::Enclave(measurements) => Ok(measurements),
        ImageMeasurements::NitroTpm(_) => Err(anyhow!(
            "{} is of an instance with a NitroTPM: give the measurements of an enclave's image",
            file.display()
        )),
    }
}

fn simulate(arguments: &Arguments, measurements: Option<Measurements>) -> anyhow::Result<()> {
    let socket = arguments.socket.display();
    // Before the root is written: documents of a simulation that runs need theirs.
    if arguments.socket.symlink_metadata().is_ok() {
        return Err(anyhow!(
            "{socket} is there already: end the simulation that serves it, or remove it"
        ));
    }
    let root = TestRoot::generate()?;
    std::fs::write(&arguments.root, root.certificate_pem())
        .with_context(|| format!("cannot write {}", arguments.root.display()))?;
    let identity = Identity {
        instance_id: "i-00000000000000000".to_owned(),
        enclave_id: "enc0000000000000000".to_owned(),
        measurements,
    };
    let module = SoftwareNsm::new(identity, root)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let listener = tokio::net::UnixListener::bind(&arguments.socket)
            .with_context(|| format!("cannot listen on {socket}"))?;
        errln!("attest: software NSM on {socket}; Ctrl-C ends it");
        let result = tokio::select! {
            result = serve(listener, module) => result,
            result = tokio::signal::ctrl_c() => result,
            _ = terminate.recv() => Ok(()),
        };
        std::fs::remove_file(&arguments.socket)?;
        Ok(result?)
    })
}
