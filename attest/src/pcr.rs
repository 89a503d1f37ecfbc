//! `attest pcr`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use attestation::pcr8_of_signer;
use clap::{ArgGroup, Args};
use command_input::read_pem;
use command_output::outln;
use fleet_key::Family;
use fleet_key::hand_over::{self, Generation};
use measurements::{InstanceId, Pcr, RoleArn};

use crate::failure::{Failure, usage};

#[derive(Debug, Args)]
#[command(group(
    ArgGroup::new("sources")
        .args(["role", "instance", "certificate", "family"])
        .required(true)
        .multiple(true)
))]
pub(crate) struct Arguments {
    /// PCR3 of an enclave whose parent instance has this IAM role, with its path.
    #[arg(long, value_name = "ARN")]
    role: Option<RoleArn>,
    /// PCR4 of an enclave on this EC2 instance.
    #[arg(long, value_name = "ID")]
    instance: Option<InstanceId>,
    /// PCR8 of an enclave whose image was signed under the first certificate in this file.
    #[arg(long, value_name = "PEM")]
    certificate: Option<PathBuf>,
    /// PCR31 of an enclave of this family, whose seed enclaves hand over, and of --generation.
    #[arg(long, value_name = "NAME", requires = "generation")]
    family: Option<Family>,
    /// The generation of the family that the image is of.
    #[arg(long, value_name = "N", requires = "family")]
    generation: Option<Generation>,
    /// Print JSON, as nitro-cli does.
    #[arg(long)]
    json: bool,
}

/// Prints the registers as `--pcr` takes them.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let mut registers: BTreeMap<u8, Pcr> = BTreeMap::new();
    if let Some(role) = &arguments.role {
        registers.insert(3, role.pcr3());
    }
    if let Some(instance) = &arguments.instance {
        registers.insert(4, instance.pcr4());
    }
    if let Some(file) = &arguments.certificate {
        let pcr8 = read_pem(file, pcr8_of_signer).map_err(|error| usage(error.into()))?;
        registers.insert(8, pcr8);
    }
    if let (Some(family), Some(generation)) = (&arguments.family, arguments.generation) {
        let pcr31 = hand_over::register(family, generation);
        registers.insert(hand_over::REGISTER, pcr31);
    }
    if arguments.json {
        let named = registers.iter();
        let named: BTreeMap<_, _> = named
            .map(|(index, pcr)| (format!("PCR{index}"), pcr))
            .collect();
        let json = serde_json::to_string_pretty(&named)
            .context("cannot write the registers")
            .map_err(usage)?;
        outln!("{json}");
    } else {
        for (index, value) in registers {
            outln!("{index}={value}");
        }
    }
    Ok(ExitCode::SUCCESS)
}
