//! The arguments of the commands that are about the instance.

use std::path::PathBuf;

use clap::Args;
use enclave_host::hypervisor::HypervisorKind;
use enclave_host::state::StateArgs;
use image_fetch::IMAGE_DIR_HELP;

use super::Step;
use crate::config::Source;

/// What an instance is, and what it is to be.
#[derive(Debug, Args)]
pub struct HostArgs {
    /// The configuration: PATH, ssm:NAME, imds:tags, imds:user-data, or auto for
    /// the first that is there.
    #[arg(long, value_name = "SOURCE", default_value = "auto")]
    pub config: Source,
    /// What runs the enclaves; all but nitro need no driver, huge pages or CPU pool.
    #[arg(long, value_enum, default_value = "nitro")]
    pub hypervisor: HypervisorKind,
    #[arg(long, value_name = "DIR", help = IMAGE_DIR_HELP)]
    #[expect(missing_docs, reason = "the help is the documentation")]
    pub image_dir: Option<PathBuf>,
    /// Where enclaves' folders are.
    #[command(flatten)]
    pub state: StateArgs,
    /// The folder that the files of kernel and systemd are looked for in.
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub root: PathBuf,
}

/// The arguments of `bootstrap`.
#[derive(Debug, Args)]
pub struct BootstrapArgs {
    /// The instance.
    #[command(flatten)]
    pub host: HostArgs,
    /// Stop after this step.
    #[arg(long, value_enum, value_name = "STEP")]
    pub until: Option<Step>,
    /// Say what would be done, and do nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Take back what was done: stop the enclaves, remove the unit, give back CPUs
    /// and memory.
    #[arg(long, conflicts_with = "dry_run")]
    pub undo: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// The arguments of `preflight` and `doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// The instance.
    #[command(flatten)]
    pub host: HostArgs,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}
