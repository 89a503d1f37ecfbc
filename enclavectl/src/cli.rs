//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use command_input::Trust;

/// Deploy, watch and destroy enclaves.
///
/// Region, credentials and endpoint come from the environment, as for AWS's own
/// tools.
///
/// Exit codes: 0 done, 1 an error, 2 the command line or the request is wrong, 3 the
/// enclave or a check failed or a secret was refused, 4 the time is up and the enclave is
/// still in motion.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) installation: Installation,
    /// Print JSON instead of text.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Which control plane.
#[derive(Debug, Clone, Args)]
pub(crate) struct Installation {
    /// Terraform's `project_name`.
    #[arg(
        long,
        global = true,
        env = "ENCLAVE_PROJECT",
        default_value = "enclaves"
    )]
    pub(crate) project: String,
    /// Terraform's `environment`.
    #[arg(
        long,
        global = true,
        env = "ENCLAVE_ENVIRONMENT",
        default_value = "dev"
    )]
    pub(crate) environment: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Request an enclave, and follow it until it is attested.
    Deploy(Box<Deploy>),
    /// Remove an enclave and everything that was created for it.
    Destroy(Move),
    /// Stop an enclave's instance, and keep it.
    Pause(Move),
    /// Start a paused enclave's instance, and have it attest.
    Resume(Move),
    /// Show an enclave.
    Status(Status),
    /// Show all enclaves, one per line.
    List {
        /// Only those with this status, such as DEPLOYED.
        #[arg(long)]
        status: Option<String>,
    },
    /// Show what is deployed: images, their measurements, and when each attested.
    Inventory,
    /// Print an enclave's log.
    Logs(Logs),
    /// Show an enclave's attestation, and verify its signed result.
    Attest(Attest),
    /// Tell what happened to an enclave's last request.
    Events {
        /// The enclave's id.
        id: String,
    },
    /// Give secrets to running enclaves.
    Secret {
        /// What is done.
        #[command(subcommand)]
        command: SecretCommand,
    },
    /// Upload an image, and record its name and its measurements.
    Publish(Publish),
    /// Check that the control plane is complete and reachable.
    Doctor,
}

#[derive(Debug, Args)]
pub(crate) struct Deploy {
    /// The enclave's id.
    pub(crate) id: String,
    /// The image's name, as it was published.
    #[arg(long)]
    pub(crate) image: String,
    /// The parent's instance type.
    #[arg(long)]
    pub(crate) instance_type: Option<String>,
    /// The enclave's CPUs.
    #[arg(long)]
    pub(crate) cpus: Option<u64>,
    /// The enclave's memory in MiB.
    #[arg(long, value_name = "MIB")]
    pub(crate) memory: Option<u64>,
    /// Debug mode: the enclave's memory can be read, and it proves nothing.
    #[arg(long)]
    pub(crate) debug: bool,
    /// `service`, `daemon` or `batch`.
    #[arg(long, value_name = "TYPE")]
    pub(crate) workload: Option<String>,
    /// A port to expose; may be given more than once.
    #[arg(long = "port", value_name = "PORT")]
    pub(crate) ports: Vec<u16>,
    /// An AWS service of the image's manifest to open, and no other; may be given
    /// more than once [default: all of the manifest's].
    #[arg(long = "service", value_name = "NAME")]
    pub(crate) services: Vec<String>,
    /// The owner's wallet address.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) wallet: Option<String>,
    #[command(flatten)]
    pub(crate) wait: Wait,
}

/// A request that only names an enclave.
#[derive(Debug, Args)]
pub(crate) struct Move {
    /// The enclave's id.
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) wait: Wait,
}

#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Wait {
    /// Return at once; `status --watch` follows the enclave later.
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// Stop following after this many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    pub(crate) timeout: u64,
}

#[derive(Debug, Args)]
pub(crate) struct Status {
    /// The enclave's id.
    pub(crate) id: String,
    /// Follow it until it is at rest.
    #[arg(long, short)]
    pub(crate) watch: bool,
    /// Stop following after this many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    pub(crate) timeout: u64,
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// The enclave's id.
    pub(crate) id: String,
    /// Keep printing new lines.
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Only this stream: application, system, health or errors.
    #[arg(long)]
    pub(crate) stream: Option<String>,
    /// Start this many minutes ago.
    #[arg(long, value_name = "MINUTES", default_value_t = 60)]
    pub(crate) since: u64,
}

#[derive(Debug, Args)]
pub(crate) struct Attest {
    /// The enclave's id.
    pub(crate) id: String,
    /// Request a new attestation first.
    #[arg(long)]
    pub(crate) again: bool,
    /// Stop waiting after this many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub(crate) timeout: u64,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SecretCommand {
    /// Verify a running enclave, and seal a secret that only this boot of it can open.
    Put(Box<PutSecret>),
}

#[derive(Debug, Args)]
pub(crate) struct PutSecret {
    /// The enclave's id.
    pub(crate) id: String,
    /// What the image's manifest calls the secret.
    pub(crate) name: String,
    /// The secret, 1 to 32768 bytes; `-` is standard input. Its last line feed is part
    /// of it.
    pub(crate) file: PathBuf,
    /// The sender's private key, whose public half the image's manifest names: Ed25519,
    /// in PEM.
    #[arg(long, value_name = "PEM")]
    pub(crate) sender: PathBuf,
    /// The measurements of the image that may have the secret, as image-builder wrote
    /// them; may be given more than once.
    #[arg(long, value_name = "FILE", required_unless_present = "policy")]
    pub(crate) measurements: Vec<PathBuf>,
    /// A policy of `attest` that the enclave must satisfy, TOML or JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) trust: Trust,
    /// How long it may take until the enclave has answered, in seconds, at most 3600.
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) timeout: u64,
}

#[derive(Debug, Args)]
pub(crate) struct Publish {
    /// The name that requests will use.
    pub(crate) reference: String,
    /// The image.
    pub(crate) eif: PathBuf,
    /// Let the name stand for this image from now on, even if it stands for another.
    #[arg(long)]
    pub(crate) replace: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
