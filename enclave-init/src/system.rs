//! The machine below everything else: what the image says, file systems, limits and
//! the workload's network.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use link::EndCode;
use manifest::{MAX_CONFIG_BYTES, MEASURED_CONFIG_PATH, MeasuredConfig};
use measurements::Pcr;
use nsm::Nsm;

use crate::args::Simulation;
use crate::capacity::Capacity;
use crate::clock;
use crate::confinement::{Confinements, Memory, Sizes};
use crate::error::{Doing, InitError};
use crate::machine::{Expedited, Reset};
use crate::network::{Making, Namespace};
use crate::parent::Search;
use crate::security_module::{Opening, SecurityModule};
use crate::sim::Descriptors;
use crate::steps::Steps;
use crate::trust::Trust;
use crate::workload::StandingBy;
use crate::{entropy, mounts};

/// A machine in which services can be started.
pub(crate) struct System {
    pub(crate) config: Arc<MeasuredConfig>,
    pub(crate) trust: Arc<Trust>,
    /// Takes on its confinement meanwhile.
    pub(crate) workload: StandingBy,
    /// The workload's.
    pub(crate) network: Arc<Namespace>,
    /// What connections may take.
    pub(crate) capacity: Capacity,
    /// Where the parent may be.
    pub(crate) search: Search,
    /// How the machine ends at once, unless it is simulated.
    pub(crate) reset: Option<Reset>,
    /// The hypervisor's clock, or why there is none.
    pub(crate) clock: Result<clock::Device, String>,
    /// Is being opened.
    pub(crate) nsm: Opening<FirstAnswers>,
}

/// What the security module is asked for first: random bytes, and PCR0.
pub(crate) type FirstAnswers = (entropy::Drawn, Pcr);

impl System {
    /// Prepares the machine; `search` is set as soon as it is known, since a failure
    /// is told to the parent.
    pub(crate) async fn prepare(
        steps: &mut Steps,
        search: &mut Option<Search>,
        simulation: Option<&Simulation>,
    ) -> Result<Self, InitError> {
        let tree = simulation.map_or(PathBuf::from("/"), |simulation| simulation.tree.clone());
        let mut reset = None;
        let mut expedited = None;
        let mut clock = Err("a simulated enclave has its host's clock".to_owned());
        let descriptors = steps
            .run(EndCode::BootMounts, async {
                let Some(simulation) = simulation else {
                    *search = Some(Search::Vsock);
                    mounts::mount_early()?;
                    reset = Some(Reset::open()?);
                    expedited = Some(Expedited::begin()?);
                    clock = clock::Device::open();
                    return Ok(None);
                };
                let descriptors = Descriptors::open(simulation)
                    .doing(|| "opening the simulation's sockets".to_owned())?;
                *search = Some(Search::Simulated(descriptors));
                Ok(Some(descriptors))
            })
            .await?;
        // What takes its time in the kernel or the module goes on beside the other steps,
        // and is a step itself where its result is wanted.
        let network = Making::begin()?;
        let (config, trust) = steps
            .run(EndCode::BootConfiguration, async {
                read_config_and_trust(&tree, simulation)
            })
            .await?;
        let (capacity, sizes) = shares_of_memory(&config, simulation)?;
        steps
            .run(EndCode::BootRoot, async {
                mounts::enter(&tree, simulation, sizes.room())?;
                if config.has_secret_files() {
                    mounts::mount_secrets()?;
                }
                mounts::mount_own_folders(config.workloads.iter().count())?;
                mounts::write_system_files(&config.name)
            })
            .await?;
        let nsm = open_nsm(descriptors.map(Descriptors::nsm))?;
        let with_credentials = config.has_credentials();
        let addresses = config.network.addresses();
        let network = steps
            .run(
                EndCode::BootLoopback,
                network.finish(addresses.into_iter(), with_credentials),
            )
            .await?;
        let network = Arc::new(network);
        let confinements = steps
            .run(EndCode::BootConfinement, async {
                if simulation.is_none() {
                    capacity.limit_sockets()?;
                }
                Confinements::prepare(&config, &sizes, &network, simulation)
            })
            .await?;
        let workload = StandingBy::new(Arc::clone(&config), Arc::new(confinements), expedited)?;
        Ok(Self {
            config,
            trust,
            workload,
            network,
            capacity,
            search: descriptors.map_or(Search::Vsock, Search::Simulated),
            reset,
            clock,
            nsm,
        })
    }
}

/// What the image says, and whom it has the enclave trust.
fn read_config_and_trust(
    tree: &Path,
    simulation: Option<&Simulation>,
) -> Result<(Arc<MeasuredConfig>, Arc<Trust>), InitError> {
    let config = read_config(tree)?;
    // The root of a simulation is out of reach later.
    let simulated_root = simulation.map(|simulation| simulation.nsm_root.as_path());
    let trust = Trust::read(&config.attestation, simulated_root)?;
    Ok((Arc::new(config), Arc::new(trust)))
}

/// The security module: the machine's own, or a simulation's.
fn open_nsm(simulated: Option<PathBuf>) -> Result<Opening<FirstAnswers>, InitError> {
    let is_simulated = simulated.is_some();
    let open = move || match simulated {
        Some(path) => Nsm::socket(&path),
        None => Nsm::device(),
    };
    SecurityModule::open(open, move |nsm| {
        let drawn = entropy::draw(nsm, is_simulated)?;
        let (pcr0, _) = nsm.describe_pcr(0)?;
        Ok((drawn, pcr0))
    })
}

/// What connections may take of the machine's memory, and what the workload may. A
/// simulation whose memory is known has the sizes of a machine that has as much.
fn shares_of_memory(
    config: &MeasuredConfig,
    simulation: Option<&Simulation>,
) -> Result<(Capacity, Sizes), InitError> {
    let memory = match simulation {
        Some(Simulation {
            tree,
            users: Some(_),
            ..
        }) => Memory::of(tree)?,
        _ => Memory::read()?,
    };
    let of_memory = Capacity::new(memory.total);
    let capacity = simulation.map_or(of_memory, |_| Capacity::simulated());
    let reserved = of_memory.bytes(&config.network);
    let sizes = Sizes::here(&config.confinement, config.logs.buffer, memory, reserved)?;
    Ok((capacity, sizes))
}

fn read_config(tree: &Path) -> Result<MeasuredConfig, InitError> {
    use std::io::Read;
    let path = tree.join(MEASURED_CONFIG_PATH);
    let mut bytes = Vec::new();
    fs::File::open(&path)
        .and_then(|file| {
            file.take(MAX_CONFIG_BYTES as u64 + 1)
                .read_to_end(&mut bytes)
        })
        .doing(|| format!("reading {}", path.display()))?;
    Ok(MeasuredConfig::from_json(&bytes)?)
}
