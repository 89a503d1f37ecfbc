//! `attest seal`.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use attestation::{Verifier, parse_duration};
use attestation_client::{Client, Endpoint, FetchError};
use clap::Args;
use command_input::read_pem;
use sealed_secret::{MAX_SECRET, SealToError, SenderKey, seal_to};

use crate::demands::Demands;
use crate::failure::{Failure, failed, rejected, unreadable, usage};
use crate::runtime::runtime;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The secret, 1 to 32768 bytes; `-` is standard input. Its last line feed is part
    /// of it.
    file: PathBuf,
    /// What the enclave's manifest calls the secret.
    #[arg(long)]
    name: String,
    /// The enclave: `unix:PATH`, the control socket of its parent-agent.
    #[arg(long, value_name = "ENDPOINT")]
    to: Endpoint,
    /// The sender's private key, whose public half the enclave's manifest names: Ed25519,
    /// in PEM.
    #[arg(long, value_name = "PEM")]
    sender: PathBuf,
    #[command(flatten)]
    demands: Demands,
    /// Write the sealed secret to this file, for `parent-agent secret put`.
    #[arg(long, value_name = "FILE", required_unless_present = "send")]
    output: Option<PathBuf>,
    /// Hand the sealed secret to the enclave.
    #[arg(long)]
    send: bool,
    /// How long the enclave's answers may take, such as 500ms or 20s.
    #[arg(long, value_name = "DURATION", default_value = "20s", value_parser = parse_duration)]
    timeout: Duration,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let policy = arguments.demands.policy(None).map_err(usage)?;
    let verifier = Verifier::new(arguments.demands.roots().map_err(usage)?);
    let sender =
        read_pem(&arguments.sender, SenderKey::from_pem).map_err(|error| usage(error.into()))?;
    let secret = command_input::read(&arguments.file, MAX_SECRET)
        .map_err(|error| unreadable(error.into()))?;
    let client = Client::new(verifier).timeout(arguments.timeout);
    let runtime = runtime()?;
    let attestation = runtime
        .block_on(client.attest_sealing_key(&arguments.to, &policy))
        .map_err(|error| match error {
            FetchError::NotAnAgent(_) | FetchError::Policy(_) => usage(error.into()),
            _ => unreadable(error.into()),
        })?;
    let accepted = attestation.outcome.as_ref().ok();
    let public_key = accepted.and_then(|accepted| accepted.public_key());
    let concluded = arguments
        .demands
        .conclude(&attestation.report, public_key)?;
    // Nothing is encrypted to a key that is not attested.
    let Ok(claims) = attestation.outcome else {
        return Ok(concluded);
    };
    let sealed =
        seal_to(&claims, &secret, &arguments.name, &sender).map_err(|error| match error {
            SealToError::Secret(_) => usage(error.into()),
            _ => rejected(error.into()),
        })?;
    if let Some(file) = &arguments.output {
        write(file, &sealed)
            .with_context(|| format!("cannot write {}", file.display()))
            .map_err(failed)?;
    }
    if arguments.send {
        runtime
            .block_on(client.put_secret(&arguments.to, &sealed))
            .map_err(|error| unreadable(error.into()))?;
    }
    Ok(concluded)
}

fn write(file: &Path, sealed: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(file)?.write_all(sealed)
}
