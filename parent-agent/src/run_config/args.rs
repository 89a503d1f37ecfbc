//! The arguments of `run`.

use std::path::PathBuf;

use clap::Args;
use enclave_host::hypervisor::{Accelerator, HypervisorKind};
use enclave_host::state::{StateArgs, StateDir, StateError};
use image_fetch::IMAGE_DIR_HELP;
use manifest::{Cpus, EnclaveName, Interval, MemoryMib};

use crate::config::Source;
use crate::crash::Backoff;
use crate::gate::GateArgs;
use crate::proxy::ProxyArgs;
use crate::recorder::MetricsArgs;

use super::logs::LogArgs;

/// Where Debian and its descendants put QEMU's firmware.
const FIRMWARE: [&str; 2] = ["/usr/share/seabios", "/usr/share/qemu"];

/// The arguments of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The enclave image, built by image-builder.
    #[arg(
        value_name = "IMAGE.eif",
        required_unless_present = "config",
        conflicts_with = "config"
    )]
    pub image: Option<PathBuf>,
    /// Run what a configuration names; other options come before it. PATH,
    /// ssm:NAME, imds:tags, imds:user-data, or auto for the first that is there.
    #[arg(long, value_name = "SOURCE")]
    pub config: Option<Source>,
    #[arg(long, value_name = "DIR", help = IMAGE_DIR_HELP)]
    #[expect(missing_docs, reason = "the help is the documentation")]
    pub image_dir: Option<PathBuf>,
    /// What runs the enclave.
    #[arg(long, value_enum)]
    pub hypervisor: HypervisorKind,
    /// The enclave's name on this host [default: the manifest's].
    #[arg(long)]
    pub name: Option<EnclaveName>,
    /// Where enclaves' folders are.
    #[command(flatten)]
    pub state: StateArgs,
    /// A file handed to the workload and measured into PCR16, at most 32 KiB.
    #[arg(long, value_name = "FILE")]
    pub runtime_config: Option<PathBuf>,
    /// Which connections are carried.
    #[command(flatten)]
    pub proxy: ProxyArgs,
    /// Virtual CPUs [default: the manifest's].
    #[arg(long)]
    pub cpus: Option<Cpus>,
    /// Memory in MiB [default: the manifest's].
    #[arg(long)]
    pub memory_mib: Option<MemoryMib>,
    /// Start in debug mode: PCRs read as zero, so documents prove nothing (not qemu).
    #[arg(long)]
    pub debug: bool,
    /// Print the enclave's console.
    #[arg(long)]
    pub console: bool,
    /// Keep the software NSM's root in this folder, as root.pem and root.key,
    /// instead of making a new one (sim only).
    #[arg(long, value_name = "DIR")]
    pub software_nsm_root: Option<PathBuf>,
    /// The QEMU program, found on PATH if it is a plain name.
    #[arg(long, value_name = "PROGRAM", default_value = "qemu-system-x86_64")]
    pub qemu_binary: PathBuf,
    /// A folder with QEMU's firmware; may be repeated.
    #[arg(long, value_name = "DIR", default_values = FIRMWARE)]
    pub qemu_firmware: Vec<PathBuf>,
    /// How QEMU executes the enclave.
    #[arg(long, value_enum, default_value = "tcg")]
    pub qemu_accel: Accelerator,
    /// The vhost-device-vsock program, found on PATH if it is a plain name.
    #[arg(long, value_name = "PROGRAM", default_value = "vhost-device-vsock")]
    pub vhost_device_vsock: PathBuf,
    /// How long the enclave goes on when this agent is gone, for the next `run`
    /// to take it over [default: it ends at once].
    #[arg(long, value_name = "TIME")]
    pub keep_for: Option<Interval>,
    /// Wait before the start if the enclave has crashed, or could not be started:
    /// 1 s, twice as long after each time in a row, at most TIME [default: start at
    /// once].
    #[arg(long, value_name = "TIME", requires = "name")]
    pub restart_backoff: Option<Interval>,
    /// How long the enclave may be silent while it boots [default: 60 s, and 1 s more
    /// for each GiB of memory and for each 16 MiB of the image].
    #[arg(long, value_name = "TIME")]
    pub boot_timeout: Option<Interval>,
    /// Print events and log records as JSON, one object a line.
    #[arg(long)]
    pub json: bool,
    /// How log records are kept and where they go.
    #[command(flatten)]
    pub logs: LogArgs,
    /// Where metrics go.
    #[command(flatten)]
    pub metrics: MetricsArgs,
    /// Who must be shown the enclave's documents.
    #[command(flatten)]
    pub gate: GateArgs,
}

impl RunArgs {
    /// What a start waits by that follows a crash, if it waits.
    pub(crate) fn backoff(&self) -> Result<Option<Backoff>, StateError> {
        let (Some(most), Some(name)) = (self.restart_backoff, &self.name) else {
            return Ok(None);
        };
        Ok(Some(Backoff {
            name: name.clone(),
            state: StateDir::new(self.state.state_dir.clone())?,
            most: most.as_duration(),
        }))
    }
}
