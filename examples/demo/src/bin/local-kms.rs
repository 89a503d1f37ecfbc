//! A KMS in software on this machine, by HTTPS, for enclaves under `sim`.

#![forbid(unsafe_code)]

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use command_output::{errln, outln};
use demo::kms::LocalKms;
use tokio::signal::unix::{SignalKind, signal};

/// Serves a KMS in software until SIGINT or SIGTERM, and says where when it listens.
///
/// Requests are verified, key policies evaluated, and attestation documents accepted under
/// the given root alone. Clients make the keys, which are gone when it ends.
///
/// Exit codes: 0 it was ended, 1 it failed, 2 wrong usage.
#[derive(Debug, Parser)]
struct Cli {
    /// Where to listen; on loopback, because the credentials are for this machine.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8443")]
    listen: SocketAddr,
    /// The certificate, PEM, of the software NSM's root, as `parent-agent run` shows it.
    #[arg(long, value_name = "PATH")]
    nsm_root: PathBuf,
    /// The folder for `authority.pem`, the root of its certificate, and for the credentials
    /// of enclaves (`enclave.env`), of another role (`other.env`), and of who makes keys and
    /// encrypts (`operator.env`).
    #[arg(long, value_name = "PATH")]
    folder: PathBuf,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let cli: Cli = match command_output::parse("local-kms", 1) {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    let code = match run(&cli).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            errln!("local-kms: {error:#}");
            ExitCode::FAILURE
        }
    };
    command_output::end("local-kms", code, 1)
}

async fn run(cli: &Cli) -> anyhow::Result<()> {
    let root = fs::read_to_string(&cli.nsm_root);
    let root = root.with_context(|| cli.nsm_root.display().to_string())?;
    let kms = LocalKms::bind(cli.listen, &root, &cli.folder).await?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be awaited")?;
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be awaited")?;
    outln!("{}", kms.endpoint()?);
    tokio::select! {
        () = kms.serve() => {}
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}
