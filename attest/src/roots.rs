//! The roots that are trusted, and `attest roots`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use attestation::{Partition, Roots};
use clap::Args;
use command_output::outln;
use serde_json::json;

use crate::failure::{Failure, usage};
use crate::input::read_pem;

/// The roots that documents must lead to.
#[derive(Debug, Args)]
pub(crate) struct Trust {
    /// Trust AWS's root for this partition, `aws` or `aws-us-gov`; `aws` unless said. May
    /// be repeated.
    #[arg(long, value_name = "PARTITION")]
    partition: Vec<Partition>,
    /// Trust the certificates in this PEM file, and AWS's root only if --partition names
    /// it.
    #[arg(long, value_name = "PEM")]
    root: Option<PathBuf>,
}

impl Trust {
    pub(crate) fn roots(&self) -> anyhow::Result<Roots> {
        let of_partitions = self.partition.iter().copied().map(Roots::partition);
        let read = |file| read_pem(file, Roots::usable_from_pem);
        let of_file = self.root.as_deref().map(read).transpose()?;
        let roots = of_partitions.chain(of_file).reduce(Roots::and);
        Ok(roots.unwrap_or_else(Roots::aws))
    }
}

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
