//! The command line.

pub mod bootstrap;
pub mod logs;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand, ValueEnum};
use manifest::{Cpus, EnclaveName, Interval, MemoryMib, Port, host_spelling};

pub use bootstrap::{BootstrapArgs, DoctorArgs};
pub use logs::{LogArgs, LogsArgs};

use crate::config::Source;
use crate::exit::EXIT_CODES;
use crate::gate::FunctionName;
use crate::guard::TetherArgs;
use crate::hypervisor::{NitroEnclaveArgs, SoftwareNsmArgs};
use crate::limit::{Connections, Limit, Rate};

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
    /// Show how a running enclave is.
    Status(StatusArgs),
    /// Show an enclave's log records, also of one that has ended.
    Logs(LogsArgs),
    /// Ask a running enclave for an attestation document.
    Attest(AttestArgs),
    /// Stop a running enclave and wait until it is gone.
    Stop(StopArgs),
    /// End a running enclave's agent, but not the enclave: the next `run` with
    /// the same arguments takes it over.
    Detach(TargetArgs),
    /// Make this instance ready for its enclaves, and start them.
    #[command(after_help = EXIT_CODES)]
    Bootstrap(Box<BootstrapArgs>),
    /// Say what would hinder a bootstrap.
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
    /// Be an enclave on Nitro hardware (started by the guard).
    #[command(hide = true)]
    NitroEnclave(NitroEnclaveArgs),
}

const IMAGE_DIR_HELP: &str = "The folder of images that were fetched \
[default: for root /var/lib/enclaves/images; otherwise $XDG_CACHE_HOME/enclaves/images]";

const STATE_DIR_HELP: &str = "The folder of all enclaves' sockets \
[default: $XDG_RUNTIME_DIR/enclaves; for root /run/enclaves; otherwise /tmp/enclaves-UID]";

/// Where Debian and its descendants put QEMU's firmware.
const FIRMWARE: [&str; 2] = ["/usr/share/seabios", "/usr/share/qemu"];

/// Where enclaves' folders are.
#[derive(Debug, Args)]
pub struct StateArgs {
    #[arg(long, value_name = "DIR", help = STATE_DIR_HELP)]
    #[expect(missing_docs, reason = "the help is the documentation")]
    pub state_dir: Option<PathBuf>,
}

/// What runs an enclave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum HypervisorKind {
    /// The image's init as an ordinary process in namespaces: no isolation from the host.
    Sim,
    /// QEMU's `nitro-enclave` machine.
    Qemu,
    /// AWS Nitro hardware, through the kernel's driver.
    Nitro,
}

/// How QEMU executes the enclave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Accelerator {
    /// In software.
    Tcg,
    /// With the host's hardware, through /dev/kvm.
    Kvm,
}

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
    /// Open the manifest's ingress PORT at HOSTPORT instead, on ADDR instead of
    /// 127.0.0.1; HOSTPORT 0 is any free port.
    #[arg(long, value_name = "[ADDR:]HOSTPORT:PORT")]
    pub publish: Vec<Publish>,
    /// Connect the enclave to ADDR:PORT where it asks for HOST:PORT, which the
    /// manifest must allow.
    #[arg(long, value_name = "HOST:PORT=ADDR:PORT")]
    pub connect_to: Vec<ConnectTo>,
    /// How many connections it may have, and how fast.
    #[command(flatten)]
    pub limits: LimitArgs,
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
    /// How long the enclave may be silent while it boots.
    #[arg(long, value_name = "TIME", default_value = "60s")]
    pub boot_timeout: Interval,
    /// Print events and log records as JSON, one object a line.
    #[arg(long)]
    pub json: bool,
    /// How log records are kept and where they go.
    #[command(flatten)]
    pub logs: LogArgs,
    /// Who must be shown the enclave's documents.
    #[command(flatten)]
    pub gate: GateArgs,
}

/// Limits of connections.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Limits of connections")]
pub struct LimitArgs {
    /// Connections out of the enclave at a time [default: 4096].
    #[arg(long = "egress-connections", value_name = "NUMBER")]
    pub egress_connections: Option<Connections>,
    /// New connections out of the enclave: so many a second, and a burst of so
    /// many [default: no limit].
    #[arg(long = "egress-rate", value_name = "PER_SECOND[:BURST]")]
    pub egress_rate: Option<Rate>,
    /// Connections into the enclave at a time [default: 4096].
    #[arg(long = "ingress-connections", value_name = "NUMBER")]
    pub ingress_connections: Option<Connections>,
    /// New connections into the enclave: so many a second, and a burst of so many
    /// [default: no limit].
    #[arg(long = "ingress-rate", value_name = "PER_SECOND[:BURST]")]
    pub ingress_rate: Option<Rate>,
}

impl LimitArgs {
    /// Those of connections out of the enclave.
    pub fn egress(&self) -> Limit {
        Limit {
            connections: self.egress_connections,
            rate: self.egress_rate,
        }
    }

    /// Those of connections into the enclave.
    pub fn ingress(&self) -> Limit {
        Limit {
            connections: self.ingress_connections,
            rate: self.ingress_rate,
        }
    }
}

/// The attestation gate of a control plane.
#[derive(Debug, Args)]
#[command(next_help_heading = "Attestation gate")]
pub struct GateArgs {
    /// Answer the challenges of this Lambda function.
    #[arg(long = "gate", value_name = "FUNCTION")]
    pub function: Option<FunctionName>,
    /// How often it is asked [default: 30s].
    #[arg(long = "gate-interval", value_name = "TIME", requires = "function")]
    pub interval: Option<Interval>,
    /// The enclave's identifier in the control plane [default: its name].
    #[arg(long, value_name = "ID", requires = "function")]
    pub enclave_id: Option<String>,
}

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
    /// Where to write the document [default: standard output, in base64 if that
    /// is a terminal].
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// The arguments of `stop`.
#[derive(Debug, Args)]
pub struct StopArgs {
    /// Which enclave.
    #[command(flatten)]
    pub target: TargetArgs,
    /// What the workload gets between SIGTERM and SIGKILL [default: the manifest's].
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

/// A port moved by `--publish`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    /// Where to listen, if not on the loopback address.
    pub address: Option<IpAddr>,
    /// The port to listen on; 0 for any free one.
    pub host_port: u16,
    /// The manifest's port.
    pub port: Port,
}

impl FromStr for Publish {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let malformed = || {
            "write [ADDR:]HOSTPORT:PORT, as in 18080:8080, 0.0.0.0:80:8080 or [::]:80:8080"
                .to_owned()
        };
        let (host, port) = text.rsplit_once(':').ok_or_else(malformed)?;
        let (address, host_port) = match host.rsplit_once(':') {
            Some((address, host_port)) => {
                let bare = address
                    .strip_prefix('[')
                    .and_then(|address| address.strip_suffix(']'))
                    .unwrap_or(address);
                (Some(bare.parse().map_err(|_| malformed())?), host_port)
            }
            None => (None, host),
        };
        Ok(Self {
            address,
            host_port: host_port.parse().map_err(|_| malformed())?,
            port: port.parse().map_err(|_| malformed())?,
        })
    }
}

/// A destination moved by `--connect-to`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectTo {
    /// The host that the enclave asks for, in lower case.
    pub host: String,
    /// The port that the enclave asks for.
    pub port: u16,
    /// Where it is connected to.
    pub address: SocketAddr,
}

impl FromStr for ConnectTo {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let malformed =
            || "write HOST:PORT=ADDR:PORT, as in api.example.com:443=127.0.0.1:8443".to_owned();
        let (target, address) = text.split_once('=').ok_or_else(malformed)?;
        let (host, port) = target.rsplit_once(':').ok_or_else(malformed)?;
        let port: Port = port.parse().map_err(|_| malformed())?;
        if host.is_empty() {
            return Err(malformed());
        }
        Ok(Self {
            host: host_spelling(host),
            port: port.get(),
            address: address.parse().map_err(|_| malformed())?,
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn ports_are_published() {
        let parse = |text: &str| text.parse::<Publish>();
        assert_eq!(
            parse("18080:8080").unwrap(),
            Publish {
                address: None,
                host_port: 18080,
                port: Port::new(8080).unwrap()
            }
        );
        assert_eq!(parse("0:80").unwrap().host_port, 0);
        assert_eq!(
            parse("0.0.0.0:80:8080").unwrap().address,
            Some("0.0.0.0".parse().unwrap())
        );
        assert_eq!(
            parse("[::1]:80:8080").unwrap().address,
            Some("::1".parse().unwrap())
        );
        for bad in [
            "",
            "80",
            "80:",
            ":80",
            "x:80",
            "80:0",
            "70000:80",
            "host:80:80",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn destinations_are_moved() {
        let moved: ConnectTo = "API.example.com.:443=127.0.0.1:8443".parse().unwrap();
        assert_eq!(moved.host, "api.example.com");
        assert_eq!(moved.port, 443);
        assert_eq!(moved.address, "127.0.0.1:8443".parse().unwrap());
        for bad in [
            "",
            "a:1",
            "a=127.0.0.1:1",
            "a:1=b:2",
            ":1=127.0.0.1:1",
            "a:0=127.0.0.1:1",
        ] {
            assert!(bad.parse::<ConnectTo>().is_err(), "{bad}");
        }
    }
}
