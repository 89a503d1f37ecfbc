//! The arguments of the commands that talk to an agent.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use enclave_host::state::StateArgs;
use manifest::{EnclaveName, Interval};

/// Which enclave a command is for.
#[derive(Debug, Args)]
pub struct TargetArgs {
    /// The enclave's name; not needed when only one runs.
    #[arg(long)]
    pub name: Option<EnclaveName>,
    /// Where enclaves' folders are.
    #[command(flatten)]
    pub state: StateArgs,
}

/// The arguments of `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Which enclave.
    #[command(flatten)]
    pub target: TargetArgs,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// The arguments of `attest`.
#[derive(Debug, Args)]
pub struct AttestArgs {
    /// Which enclave.
    #[command(flatten)]
    pub target: TargetArgs,
    /// The verifier's nonce, 1 to 512 bytes: all that goes into the document from
    /// outside of the enclave.
    #[arg(long, value_name = "HEX")]
    pub nonce: HexBytes,
    /// Have the document carry the key that secrets are sealed to.
    #[arg(long)]
    pub sealing: bool,
    /// Where to write the document [default: standard output, in base64 if that
    /// is a terminal].
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// The arguments of `secret put`.
#[derive(Debug, Args)]
pub struct PutArgs {
    /// Which enclave.
    #[command(flatten)]
    pub target: TargetArgs,
    /// What `attest seal` wrote.
    pub file: PathBuf,
}

/// The arguments of `keys hand-over`.
#[derive(Debug, Args)]
pub struct HandOverArgs {
    /// The enclave that has the seed.
    #[arg(long, value_name = "NAME")]
    pub from: EnclaveName,
    /// The enclave that waits for it.
    #[arg(long, value_name = "NAME")]
    pub to: EnclaveName,
    /// Where enclaves' folders are.
    #[command(flatten)]
    pub state: StateArgs,
}

/// The arguments of `stop`.
#[derive(Debug, Args)]
pub struct StopArgs {
    /// Which enclave.
    #[command(flatten)]
    pub target: TargetArgs,
    /// What the workload gets between the stop signal and SIGKILL [default: the manifest's].
    #[arg(long, value_name = "TIME")]
    pub grace: Option<Interval>,
}

/// Bytes written in hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HexBytes(pub Vec<u8>);

impl FromStr for HexBytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        hex::decode(text)
            .map(Self)
            .map_err(|error| format!("{error}: write an even number of hexadecimal digits"))
    }
}
