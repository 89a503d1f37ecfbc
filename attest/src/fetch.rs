//! `attest fetch`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use attestation::{Verifier, parse_duration};
use attestation_client::{Attestation, Client, Endpoint, FetchError, TlsServer, Trust};
use clap::Args;

use crate::demands::Demands;
use crate::failure::{Failure, unreadable, usage};
use crate::input::tls_authorities;
use crate::runtime::runtime;

#[derive(Debug, Args)]
#[expect(
    clippy::option_option,
    reason = "clap's form of an option whose value may be left out"
)]
pub(crate) struct Arguments {
    /// Who is asked: `https://HOST/PATH` and `http://…` answer `GET …?nonce=HEX`,
    /// `unix:PATH` is a parent-agent's control socket, `nsm:PATH` a software
    /// NSM's.
    endpoint: Endpoint,
    #[command(flatten)]
    demands: Demands,
    /// Write the document to this file, whether it is accepted or not.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Believe a TLS server for which these certificate authorities vouch,
    /// instead of the system's.
    #[arg(long, value_name = "PEM")]
    ca: Option<PathBuf>,
    /// Believe a TLS server whose key is the document's `public_key`, whatever
    /// its certificate: the https endpoint, or the one at HOST:PORT where the endpoint
    /// is an agent.
    #[arg(
        long,
        value_name = "HOST:PORT",
        num_args = 0..=1,
        require_equals = true,
        conflicts_with = "ca"
    )]
    bind_tls: Option<Option<TlsServer>>,
    /// How long the document may take, such as 500ms or 20s.
    #[arg(long, value_name = "DURATION", default_value = "20s", value_parser = parse_duration)]
    timeout: Duration,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let policy = arguments.demands.policy(None).map_err(usage)?;
    let verifier = Verifier::new(arguments.demands.roots().map_err(usage)?);
    let mut client = Client::new(verifier)
        .trust(trust(arguments).map_err(usage)?)
        .timeout(arguments.timeout);
    if let Some(Some(server)) = &arguments.bind_tls {
        client = client.bind_tls(server.clone());
    }
    let runtime = runtime()?;
    let attestation = runtime
        .block_on(client.attest(&arguments.endpoint, &policy))
        .map_err(|error| match error {
            FetchError::NoTls(_) | FetchError::TwoServers(_) | FetchError::Policy(_) => {
                usage(error.into())
            }
            _ => unreadable(error.into()),
        })?;
    if let Some(file) = &arguments.output {
        keep(file, &attestation).map_err(usage)?;
    }
    let accepted = attestation.outcome.as_ref().ok();
    let public_key = accepted.and_then(|accepted| accepted.public_key());
    arguments.demands.conclude(&attestation.report, public_key)
}

fn trust(arguments: &Arguments) -> anyhow::Result<Trust> {
    if arguments.bind_tls.is_some() {
        return Ok(Trust::attested_key());
    }
    tls_authorities(arguments.ca.as_deref())
}

fn keep(file: &Path, attestation: &Attestation) -> anyhow::Result<()> {
    std::fs::write(file, &attestation.document)
        .with_context(|| format!("cannot write {}", file.display()))
}
