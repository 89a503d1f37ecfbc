//! What `run` serves, decided once: from its command line, the configuration that
//! this names and the image, each part of the agent has a configuration of its own.

mod args;
mod image;
mod logs;

use std::path::Path;
use std::time::Duration;

use enclave_host::hypervisor::{
    HypervisorConfig, HypervisorKind, NitroOptions, QemuOptions, SimOptions,
};
use enclave_host::image::{Image, RuntimeConfigError, read_runtime_config};
use enclave_host::state::StateDir;
use link::control::MAX_RUNTIME_CONFIG;
use link::target::{MAX_CONNECTIONS, connections};
use log_sinks::PipelineConfig;
use log_sinks::config::SinkSpec;
use manifest::{Cpus, EnclaveName, Interval, MemoryMib};

use crate::config::{EnclaveConfig, Source};
use crate::error::Error;
use crate::gate::GateConfig;
use crate::machine::MachineConfig;
use crate::proxy::{ProxyArgs, ProxyConfig};
use crate::recorder::{EmbeddedMetrics, MetricsArgs, MetricsConfig};
use crate::report::Reporter;
use crate::supervisor::SupervisorConfig;

pub use args::RunArgs;
pub use logs::{LogArgs, SpoolSize};

/// What one enclave is run with. It does not change while it runs.
#[derive(Debug)]
pub(crate) struct RunConfig {
    /// What it is.
    pub(crate) machine: MachineConfig,
    /// What runs it.
    pub(crate) hypervisor: HypervisorConfig,
    /// The gate that wants to see its documents.
    pub(crate) gate: Option<GateConfig>,
    /// What is done for it.
    pub(crate) session: SessionConfig,
}

/// What an agent does for its enclave.
#[derive(Debug)]
pub(crate) struct SessionConfig {
    /// The connections that are carried.
    pub(crate) proxy: ProxyConfig,
    /// Where log records go.
    pub(crate) logs: PipelineConfig,
    /// What is measured, and for whom.
    pub(crate) metrics: MetricsConfig,
    /// What the enclave is told, and given time for.
    pub(crate) supervisor: SupervisorConfig,
}

impl RunConfig {
    /// Reads the configuration, if one is named, gets and checks the image, and puts
    /// the three together: the command line comes before the configuration, and that
    /// before the image's manifest.
    pub(crate) async fn resolve(args: RunArgs, reporter: &Reporter) -> Result<Self, Error> {
        let (region, enclave) = match &args.config {
            Some(source) => {
                let (region, enclave) = select(source, args.name.as_ref()).await?;
                (region, Some(enclave))
            }
            None => (None, None),
        };
        let debug = args.debug || enclave.as_ref().is_some_and(|enclave| enclave.debug);
        check(args.hypervisor, debug, args.software_nsm_root.is_some())?;
        let path = match (&enclave, args.image.clone()) {
            (Some(enclave), _) => {
                let folder = args.image_dir.clone();
                image::fetch(folder, enclave, region.as_deref(), reporter).await?
            }
            (None, Some(path)) => path,
            (None, None) => {
                return Err(Error::Usage(
                    "name an image, or a configuration with --config",
                ));
            }
        };
        let image = image::open(path.clone()).await?;
        if let Some(enclave) = &enclave {
            image::check_signer(enclave, &image)?;
        }
        image::check_certificate(&image);

        let given = enclave.as_ref();
        let host = image.host().clone();
        let name = match (given, &args.name) {
            (Some(EnclaveConfig { name, .. }), _) | (None, Some(name)) => name.clone(),
            (None, None) => host.name.clone(),
        };
        let id = given.map_or_else(|| name.to_string(), |given| given.id.clone());
        let configured = given.and_then(|given| given.runtime_configuration.as_deref());
        let runtime_config = runtime_config(args.runtime_config.as_deref(), configured)?;
        let memory = args
            .memory_mib
            .or(given.and_then(|given| given.memory_mib))
            .unwrap_or(host.memory_mib);
        let cpus = args
            .cpus
            .or(given.and_then(|given| given.cpus))
            .unwrap_or(host.cpus);
        let machine = MachineConfig {
            name: name.clone(),
            state: StateDir::new(args.state.state_dir.clone())?,
            image: path,
            image_bytes: image.size(),
            pcrs: image.measurements().into(),
            host,
            memory,
            debug,
            runtime_config: runtime_config.clone(),
            console: args.console,
        };
        let hypervisor = hypervisor(&args, image, &machine, cpus);
        let logs = args.logs.pipeline(
            &name,
            region.clone(),
            given.and_then(|given| given.log_group.clone()),
            given.and_then(|given| given.log_retention),
        );
        let metrics_id = args.gate.enclave_id.clone().unwrap_or_else(|| id.clone());
        let metrics = metrics(args.metrics, given, metrics_id, &logs)?;
        let carried = match args.hypervisor {
            // A simulated enclave has its host's memory.
            HypervisorKind::Sim => MAX_CONNECTIONS,
            HypervisorKind::Qemu | HypervisorKind::Nitro => connections(memory.bytes()),
        };
        let proxy = proxy(args.proxy, given, region, carried);
        let boot_timeout = args
            .boot_timeout
            .or(given.and_then(|given| given.boot_timeout))
            .map_or_else(
                || boot_timeout(memory, machine.image_bytes),
                Interval::as_duration,
            );
        Ok(Self {
            gate: args
                .gate
                .config(&id, given.and_then(|given| given.gate.clone())),
            machine,
            hypervisor,
            session: SessionConfig {
                proxy,
                logs,
                metrics,
                supervisor: SupervisorConfig {
                    boot_timeout,
                    runtime_config,
                    keep_for: args.keep_for.map(Interval::as_duration),
                },
            },
        })
    }
}

impl SessionConfig {
    /// The region of requests to AWS, if it is not the environment's or the instance's.
    pub(crate) fn region(&self) -> Option<&str> {
        self.proxy.region.as_deref()
    }
}

/// How long an enclave may be silent while it boots, if nobody says otherwise: the
/// hypervisor clears its memory, and the image is read, copied, measured and unpacked.
fn boot_timeout(memory: MemoryMib, image_bytes: u64) -> Duration {
    const AT_LEAST: u64 = 60;
    /// Bytes that take another second at most.
    const MEMORY: u64 = 1 << 30;
    const IMAGE: u64 = 16 << 20;
    let seconds = AT_LEAST + memory.bytes().div_ceil(MEMORY);
    Duration::from_secs(seconds.saturating_add(image_bytes.div_ceil(IMAGE)))
}

/// What does not go together.
fn check(hypervisor: HypervisorKind, debug: bool, has_nsm_root: bool) -> Result<(), Error> {
    if debug && hypervisor == HypervisorKind::Qemu {
        return Err(Error::Usage(
            "--debug does not work with --hypervisor qemu, whose machine always measures",
        ));
    }
    if has_nsm_root && hypervisor != HypervisorKind::Sim {
        return Err(Error::Usage(
            "--software-nsm-root works only with --hypervisor sim: other machines have an NSM of their own",
        ));
    }
    Ok(())
}

/// What runs the machine.
fn hypervisor(
    args: &RunArgs,
    image: Image,
    machine: &MachineConfig,
    cpus: Cpus,
) -> HypervisorConfig {
    let MachineConfig {
        name,
        memory,
        debug,
        ..
    } = machine;
    let (name, memory, debug) = (name.clone(), *memory, *debug);
    let path = image.path().to_owned();
    match args.hypervisor {
        HypervisorKind::Sim => HypervisorConfig::Sim(
            Box::new(image),
            SimOptions {
                name,
                memory,
                debug,
                nsm_root: args.software_nsm_root.clone(),
            },
        ),
        HypervisorKind::Nitro => HypervisorConfig::Nitro(NitroOptions {
            name,
            image: path,
            cpus,
            memory,
            debug,
        }),
        HypervisorKind::Qemu => HypervisorConfig::Qemu(QemuOptions {
            name,
            image: path,
            cpus,
            memory,
            binary: args.qemu_binary.clone(),
            firmware: args.qemu_firmware.clone(),
            accelerator: args.qemu_accel,
            vhost_device_vsock: args.vhost_device_vsock.clone(),
        }),
    }
}

/// Which connections are carried.
fn proxy(
    args: ProxyArgs,
    given: Option<&EnclaveConfig>,
    region: Option<String>,
    carried: usize,
) -> ProxyConfig {
    let (egress, ingress) =
        given.map_or_else(Default::default, |given| (given.egress, given.ingress));
    let publish = match given {
        Some(given) if args.publish.is_empty() => given.publish.clone(),
        _ => args.publish,
    };
    ProxyConfig {
        publish,
        connect_to: args.connect_to,
        egress: args.limits.egress().or(egress),
        ingress: args.limits.ingress().or(ingress),
        carried,
        aws_services: given.and_then(|given| given.aws_services.clone()),
        region,
    }
}

/// Who gets metrics; CloudWatch makes them of log records.
fn metrics(
    args: MetricsArgs,
    given: Option<&EnclaveConfig>,
    enclave_id: String,
    logs: &PipelineConfig,
) -> Result<MetricsConfig, Error> {
    let configured = given.and_then(|given| given.metrics_namespace.clone());
    let namespace = args.namespace.or(configured);
    if namespace.is_some() && !logs.sinks.contains(&SinkSpec::CloudWatch) {
        return Err(Error::Usage(
            "CloudWatch makes metrics of log records: a namespace of metrics needs a log group, or --sink cloudwatch",
        ));
    }
    Ok(MetricsConfig {
        address: args.address,
        embedded: namespace.map(|namespace| EmbeddedMetrics {
            namespace,
            enclave_id,
        }),
    })
}

/// The enclave that `--name` means, or the only one.
async fn select(
    source: &Source,
    name: Option<&EnclaveName>,
) -> Result<(Option<String>, EnclaveConfig), Error> {
    let (config, found) = source.read().await?;
    if let Some(enclave) = config.enclave(name) {
        let enclave = enclave.clone();
        return Ok((config.region, enclave));
    }
    let names = config.names();
    Err(Error::Selection(match name {
        Some(name) => format!("the configuration {found} has no enclave `{name}`, but {names}"),
        None => format!(
            "the configuration {found} has several enclaves, of which one `run` serves one: choose with --name from {names}"
        ),
    }))
}

/// What is handed to the workload: the file, or what is configured.
fn runtime_config(
    file: Option<&Path>,
    configured: Option<&str>,
) -> Result<link::Bytes<MAX_RUNTIME_CONFIG>, Error> {
    match (file, configured) {
        (Some(path), _) => Ok(link::Bytes::new(read_runtime_config(path)?)
            .ok_or_else(|| RuntimeConfigError::TooLarge(path.to_owned()))?),
        (None, Some(text)) => Ok(link::Bytes::new(text.as_bytes().to_vec())
            .expect("its length was checked where it was parsed")),
        (None, None) => Ok(link::Bytes::default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_timeout_grows_with_memory_and_image() {
        let seconds = |mib: u64, image| {
            let memory = MemoryMib::holding(mib << 20).unwrap();
            boot_timeout(memory, image).as_secs()
        };
        assert_eq!(seconds(512, 1), 62);
        assert_eq!(seconds(1024, 16 << 20), 62);
        assert_eq!(seconds(1 << 20, 1 << 30), 60 + 1024 + 64);
    }
}
