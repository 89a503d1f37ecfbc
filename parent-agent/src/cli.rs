//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use enclave_host::guard::TetherArgs;
use enclave_host::hypervisor::{NitroEnclaveArgs, SimTreeArgs, SoftwareNsmArgs};

use crate::bootstrap::{BootstrapArgs, DoctorArgs};
use crate::client::{AttestArgs, HandOverArgs, PutArgs, StatusArgs, StopArgs, TargetArgs};
use crate::exit::EXIT_CODES;
use crate::logs::LogsArgs;
use crate::run_config::RunArgs;

/// Starts enclaves and carries their traffic, logs and attestation.
#[derive(Debug, Parser)]
#[command(name = "parent-agent", version, after_help = EXIT_CODES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The sub-commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start an enclave from an image and serve it until it ends.
    #[command(after_help = EXIT_CODES)]
    Run(Box<RunArgs>),
    /// Show the state of a running enclave.
    Status(StatusArgs),
    /// Show an enclave's log records, also of one that has ended.
    Logs(LogsArgs),
    /// Ask a running enclave for an attestation document.
    Attest(AttestArgs),
    /// Hand secrets to a running enclave.
    #[command(subcommand)]
    Secret(Secret),
    /// Make the seed of a family of enclaves, or hand it from one to another.
    #[command(subcommand)]
    Keys(Keys),
    /// Stop a running enclave and wait until it is gone.
    Stop(StopArgs),
    /// End a running enclave's agent, but not the enclave: the next `run` with
    /// the same arguments takes it over.
    Detach(TargetArgs),
    /// Make this instance ready for its enclaves, and start them.
    #[command(after_help = EXIT_CODES)]
    Bootstrap(Box<BootstrapArgs>),
    /// Say what would prevent a bootstrap.
    #[command(after_help = EXIT_CODES)]
    Preflight(Box<DoctorArgs>),
    /// Say what is wrong with an instance whose enclaves should be running.
    #[command(after_help = EXIT_CODES)]
    Doctor(Box<DoctorArgs>),
    /// Take the vsock connections of all of this instance's enclaves, and pass each
    /// on to its agent: what several enclaves on Nitro need.
    Dispatch,
    /// Show the version.
    Version {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Own an enclave's processes and folder (started by `run`).
    #[command(hide = true)]
    Guard {
        /// The enclave's folder.
        directory: PathBuf,
    },
    /// Run a program that dies with its parent (started by the guard).
    #[command(hide = true)]
    Tether(TetherArgs),
    /// Be the security module of a simulated enclave (started by the guard).
    #[command(hide = true)]
    SoftwareNsm(SoftwareNsmArgs),
    /// Make the file systems of a simulated enclave and become its init (started by the
    /// guard).
    #[command(hide = true)]
    SimTree(SimTreeArgs),
    /// Hold the user namespace of a simulated enclave (started by `sim-tree`).
    #[command(hide = true)]
    SimUsers,
    /// Be an enclave on Nitro hardware (started by the guard).
    #[command(hide = true)]
    NitroEnclave(NitroEnclaveArgs),
}

/// What is done with secrets.
#[derive(Debug, Subcommand)]
pub enum Secret {
    /// Hand in a sealed secret, which only the enclave that it was sealed to opens.
    Put(PutArgs),
}

/// What is done with the seed of a family. The agents learn nothing of it.
#[derive(Debug, Subcommand)]
pub enum Keys {
    /// Have an enclave make the first seed of its family, and print its fingerprint.
    Create(TargetArgs),
    /// Have one enclave hand the seed to another one on this host, and print its fingerprint.
    HandOver(HandOverArgs),
    /// Between two hosts, first: the giver's challenge, to standard output.
    Challenge(TargetArgs),
    /// Between two hosts, second: the receiver's request, from the challenge.
    Request(TargetArgs),
    /// Between two hosts, third: the giver's gift, from the request.
    Give(TargetArgs),
    /// Between two hosts, last: the receiver takes the gift; print its fingerprint.
    Take(TargetArgs),
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
