//! `attest roots`: the roots of AWS's partitions.

use std::process::ExitCode;

use anyhow::Context;
use attestation::Partition;
use clap::Args;
use command_output::outln;
use serde_json::json;

use crate::failure::{Failure, usage};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Print them as JSON.
    #[arg(long)]
    json: bool,
    /// Print the certificates themselves, for --root and for programs that take PEM.
    #[arg(long, conflicts_with = "json")]
    pem: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    if arguments.json {
        let roots = Partition::ALL.map(|partition| {
            json!({
                "partition": partition,
                "sha256": partition.fingerprint(),
                "source": partition.source(),
            })
        });
        let all = json!({ "roots": roots, "unpublished": Partition::UNPUBLISHED });
        let text = serde_json::to_string_pretty(&all)
            .context("cannot write the roots")
            .map_err(usage)?;
        outln!("{text}");
        return Ok(ExitCode::SUCCESS);
    }
    if arguments.pem {
        for partition in Partition::ALL {
            outln!("{}", partition.pem().trim_end());
        }
        return Ok(ExitCode::SUCCESS);
    }
    for partition in Partition::ALL {
        outln!("{partition}");
        outln!("  SHA-256       {}", partition.fingerprint());
        outln!("  published at  {}", partition.source());
    }
    outln!(
        "\nThe roots of {} could not be found in AWS's public documentation: give one of them with --root.",
        Partition::UNPUBLISHED.join(", ")
    );
    Ok(ExitCode::SUCCESS)
}
