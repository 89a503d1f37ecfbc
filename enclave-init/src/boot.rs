//! The boot, step by step. Each step is timed; the first that fails ends it.

use std::fs;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use aws_lc_rs::digest::{SHA384, digest};
use link::BootId;
use link::control::{CheckOutcome, FromInit};
use link::port::HOST_CID;
use link::{EndCode, Endpoint, Listener, Text};
use manifest::{Attestation, MAX_CONFIG_BYTES, MEASURED_CONFIG_PATH, MeasuredConfig, SelfCheck};
use measurements::Pcr;
use nsm::{Nsm, NsmError};

use crate::api::{self, Api, Verifications};
use crate::args::Simulation;
use crate::capacity::Capacity;
use crate::clock::{self, Clock};
use crate::confinement::{Cgroup, Confinement, Memory, Sizes};
use crate::control::{self, Session};
use crate::error::{Doing, InitError};
use crate::logs::Logs;
use crate::machine::Reset;
use crate::parent::{self, Parent, Search};
use crate::pressure::Pressure;
use crate::security_module::SecurityModule;
use crate::self_check::{Evidence, Finding, Signing};
use crate::sim::Descriptors;
use crate::trust::Trust;
use crate::workload::RUNTIME_CONFIG_PATH;
use crate::{egress, entropy, ingress, limits, mounts, network, registers};

/// The register that the runtime configuration is measured into.
const RUNTIME_CONFIG_PCR: u16 = 16;
/// Random bytes that tell this boot from every other.
const BOOT_ID_BYTES: usize = 16;

/// An enclave that has booted, up to its workload.
pub(crate) struct Booted {
    pub(crate) config: MeasuredConfig,
    pub(crate) agent: Endpoint,
    pub(crate) session: Session,
    pub(crate) boot: BootId,
    pub(crate) nsm: SecurityModule,
    pub(crate) self_check: Finding,
    pub(crate) clock: Clock,
    /// What there is to say of how the clock was set.
    pub(crate) clock_lines: Vec<clock::Line>,
    pub(crate) logs: Logs,
    pub(crate) pressure: Pressure,
    pub(crate) confinement: Arc<Confinement>,
    pub(crate) steps: Steps,
}

/// A boot that failed, with what is known of the parent.
pub(crate) struct Failed {
    /// Of the step.
    pub(crate) code: EndCode,
    pub(crate) error: InitError,
    reached: Reached,
}

/// How far the boot has come towards the parent.
#[derive(Default)]
struct Reached {
    search: Option<Search>,
    parent: Option<Parent>,
    session: Option<Session>,
    boot: BootId,
    /// What came of the self-check, once it was made.
    self_check: Option<FromInit>,
}

impl Failed {
    /// Tells the parent, which is looked for if that has not been tried.
    pub(crate) async fn tell(self, message: &FromInit) {
        let Reached {
            search,
            parent,
            session,
            boot,
            self_check,
        } = self.reached;
        if let Some(mut session) = session {
            if let Some(self_check) = &self_check {
                session.tell(self_check).await;
            }
            return session.end(message).await;
        }
        let parent = match (parent, search) {
            (Some(parent), _) => Some(parent),
            (None, Some(search)) if self.code != EndCode::BootHeartbeat => {
                parent::find(&search).await.ok()
            }
            _ => None,
        };
        if let Some(parent) = parent {
            control::report_failure(&parent.agent(), &boot, message).await;
        }
    }
}

/// The steps and their times.
#[derive(Debug)]
pub(crate) struct Steps {
    start: Instant,
    /// What a failure at this point is called.
    current: EndCode,
    done: Vec<(&'static str, u64, u64)>,
}

impl Steps {
    fn new(start: Instant) -> Self {
        Self {
            start,
            current: EndCode::BootMounts,
            done: Vec::new(),
        }
    }

    /// Runs the step whose failure has this code.
    async fn run<T>(
        &mut self,
        code: EndCode,
        step: impl Future<Output = Result<T, InitError>>,
    ) -> Result<T, InitError> {
        self.current = code;
        let begun = self.elapsed_us();
        let result = step.await?;
        let ended = self.elapsed_us();
        let name = code.boot_step().unwrap_or_default();
        self.done.push((name, ended, ended.saturating_sub(begun)));
        Ok(result)
    }

    /// Microseconds since the init's start.
    pub(crate) fn elapsed_us(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// The steps as messages for the agent.
    pub(crate) fn messages(&self) -> impl Iterator<Item = FromInit> + '_ {
        self.done
            .iter()
            .map(|&(name, at_us, took_us)| FromInit::Step {
                name: Text::new(name),
                at_us,
                took_us,
            })
    }

    /// The steps as log records.
    pub(crate) fn lines(&self) -> impl Iterator<Item = String> + '_ {
        self.done.iter().map(|&(name, at_us, took_us)| {
            format!("boot step={name} at_us={at_us} took_us={took_us}")
        })
    }
}

/// Boots.
pub(crate) async fn boot(
    start: Instant,
    simulation: Option<&Simulation>,
) -> Result<Booted, Failed> {
    let mut steps = Steps::new(start);
    let mut reached = Reached::default();
    let result = run_steps(&mut steps, &mut reached, simulation).await;
    let result = result.and_then(|(environment, pressure)| match reached.session.take() {
        Some(session) => Ok((session, environment, pressure)),
        None => Err(InitError::NoParent),
    });
    match result {
        Ok((session, environment, pressure)) => Ok(Booted {
            config: environment.config,
            agent: environment.agent,
            session,
            boot: reached.boot,
            nsm: environment.nsm,
            self_check: environment.self_check,
            clock: environment.clock,
            clock_lines: environment.clock_lines,
            logs: environment.logs,
            pressure,
            confinement: environment.confinement,
            steps,
        }),
        Err(error) => Err(Failed {
            code: steps.current,
            error,
            reached,
        }),
    }
}

/// What the steps have made.
struct Environment {
    config: MeasuredConfig,
    agent: Endpoint,
    nsm: SecurityModule,
    trust: Arc<Trust>,
    self_check: Finding,
    clock: Clock,
    clock_lines: Vec<clock::Line>,
    logs: Logs,
    confinement: Arc<Confinement>,
    capacity: Capacity,
}

async fn run_steps(
    steps: &mut Steps,
    reached: &mut Reached,
    simulation: Option<&Simulation>,
) -> Result<(Environment, Pressure), InitError> {
    let tree = simulation.map_or(PathBuf::from("/"), |simulation| simulation.tree.clone());
    let mut reset = None;
    let mut device = Err("a simulated enclave has its host's clock".to_owned());
    let descriptors = steps
        .run(EndCode::BootMounts, async {
            let Some(simulation) = simulation else {
                reached.search = Some(Search::Vsock);
                mounts::mount_early()?;
                reset = Some(Reset::open()?);
                device = clock::Device::open();
                return Ok(None);
            };
            let descriptors = Descriptors::open(simulation)
                .doing(|| "opening the simulation's sockets".to_owned())?;
            reached.search = Some(Search::Simulated(descriptors));
            Ok(Some(descriptors))
        })
        .await?;
    let (config, trust) = steps
        .run(EndCode::BootConfiguration, async {
            read_config_and_trust(&tree, simulation)
        })
        .await?;
    let (capacity, sizes) = shares_of_memory(&config, simulation)?;
    steps
        .run(EndCode::BootRoot, async {
            mounts::enter(&tree, simulation.is_some(), sizes.room())?;
            mounts::write_system_files(&config.name)
        })
        .await?;
    let confinement = steps
        .run(EndCode::BootConfinement, async {
            if simulation.is_none() {
                capacity.limit_tcp()?;
            }
            prepare_confinement(&config, &sizes, simulation)
        })
        .await?;
    steps
        .run(EndCode::BootLoopback, async {
            network::bring_up_loopback()
        })
        .await?;
    let search = descriptors.map_or(Search::Vsock, Search::Simulated);
    let parent = steps
        .run(EndCode::BootHeartbeat, parent::find(&search))
        .await?;
    reached.parent = Some(parent);
    if let (Some(reset), Parent::Vsock(HOST_CID)) = (reset, parent) {
        reset.by_triple_fault();
    }
    let agent = parent.agent();

    let nsm = steps.run(EndCode::BootNsm, open_nsm(descriptors)).await?;
    let debug = steps
        .run(EndCode::BootEntropy, async {
            if simulation.is_none() {
                entropy::check_generator()?;
                entropy::credit(&nsm.run(entropy::draw).await?)?;
            }
            reached.boot = draw_boot_id(&nsm).await?;
            let (pcr0, _) = nsm.run(|nsm| nsm.describe_pcr(0)).await?;
            Ok(pcr0 == Pcr::ZERO)
        })
        .await?;
    // Before anything that has a time, or judges one.
    let (clock, clock_lines) = steps
        .run(EndCode::BootClock, async {
            Ok(Clock::set(device, nsm.clone(), simulation.is_some()).await)
        })
        .await?;
    let (session, runtime_config) = steps
        .run(EndCode::BootControl, control::open(&agent, &reached.boot))
        .await?;
    reached.session = Some(session);
    steps
        .run(EndCode::BootRuntimeConfiguration, async {
            measure_runtime_config(&nsm, &runtime_config).await?;
            write_runtime_config(&runtime_config)
        })
        .await?;

    let demands = &config.attestation;
    let self_check = check_itself(steps, reached, &nsm, &trust, demands, parent, &clock).await?;

    let logs = Logs::new(config.logs.clone(), debug);
    let environment = Environment {
        config,
        agent,
        nsm,
        trust,
        self_check,
        clock,
        clock_lines,
        logs,
        confinement: Arc::new(confinement),
        capacity,
    };
    let ingress = parent.ingress();
    let services = start_services(&environment, &ingress, &reached.boot);
    let pressure = steps.run(EndCode::BootServices, services).await?;
    Ok((environment, pressure))
}

/// What the image says, and whom it has the enclave trust.
fn read_config_and_trust(
    tree: &Path,
    simulation: Option<&Simulation>,
) -> Result<(MeasuredConfig, Arc<Trust>), InitError> {
    let config = read_config(tree)?;
    // The root of a simulation is out of reach later.
    let simulated_root = simulation.map(|simulation| simulation.nsm_root.as_path());
    let trust = Trust::read(&config.attestation, simulated_root)?;
    Ok((config, Arc::new(trust)))
}

/// What connections may take of the machine's memory, and what the workload may.
fn shares_of_memory(
    config: &MeasuredConfig,
    simulation: Option<&Simulation>,
) -> Result<(Capacity, Sizes), InitError> {
    let memory = Memory::read()?;
    let capacity = match simulation {
        Some(_) => Capacity::simulated(),
        None => Capacity::new(memory.total),
    };
    let reserved = capacity.bytes(&config.network);
    let sizes = Sizes::here(&config.confinement, config.logs.buffer, memory, reserved)?;
    Ok((capacity, sizes))
}

/// A simulation has no cgroup: the hierarchy is its host's.
fn prepare_confinement(
    config: &MeasuredConfig,
    sizes: &Sizes,
    simulation: Option<&Simulation>,
) -> Result<Confinement, InitError> {
    let cgroup = if simulation.is_none() {
        limits::lift_shared()?;
        Some(Cgroup::create(sizes)?)
    } else {
        None
    };
    Confinement::prepare(config, cgroup, sizes)
}

/// The security module: the machine's own, or a simulation's.
async fn open_nsm(descriptors: Option<Descriptors>) -> Result<SecurityModule, InitError> {
    let path = descriptors.map(Descriptors::nsm);
    SecurityModule::open(move || match path {
        Some(path) => Nsm::socket(&path),
        None => Nsm::device(),
    })
    .await
}

/// Drawn by the module's generator, so that no two boots have the same.
async fn draw_boot_id(nsm: &SecurityModule) -> Result<BootId, InitError> {
    let random = nsm.run(|nsm| nsm.random_bytes(BOOT_ID_BYTES)).await?;
    let id = random
        .first_chunk::<BOOT_ID_BYTES>()
        .and_then(|id| BootId::new(*id))
        .ok_or(NsmError::Unexpected)?;
    Ok(id)
}

/// Has every document show which configuration the agent gave. The register is
/// locked, so that nothing that runs later can pretend another.
async fn measure_runtime_config(nsm: &SecurityModule, config: &[u8]) -> Result<(), InitError> {
    let digest = digest(&SHA384, config);
    nsm.run(move |nsm| {
        nsm.extend_pcr(RUNTIME_CONFIG_PCR, digest.as_ref())?;
        nsm.lock_pcr(RUNTIME_CONFIG_PCR)
    })
    .await?;
    Ok(())
}

/// Locks the registers that nobody uses, and verifies the enclave's own document.
async fn check_itself(
    steps: &mut Steps,
    reached: &mut Reached,
    nsm: &SecurityModule,
    trust: &Trust,
    demands: &Attestation,
    parent: Parent,
    clock: &Clock,
) -> Result<Finding, InitError> {
    let open = demands.open_registers.clone();
    steps
        .run(EndCode::BootRegisters, async {
            nsm.run(move |nsm| registers::lock_unused(nsm, &open))
                .await?;
            Ok(())
        })
        .await?;
    let signing = match parent {
        Parent::Vsock(HOST_CID) => Signing::Perhaps,
        Parent::Vsock(_) | Parent::Simulated(_) => Signing::Always,
    };
    steps
        .run(EndCode::BootSelfCheck, async {
            let evidence = nsm.run(Evidence::gather).await?;
            let finding = evidence.judge(trust, demands, signing, clock.known_ms());
            reached.self_check = Some(finding.message());
            match (finding.outcome(), demands.self_check) {
                (CheckOutcome::Failed, SelfCheck::Required) => Err(InitError::SelfCheck {
                    finding: finding.sentence(),
                    advice: finding.advice(),
                }),
                _ => Ok(finding),
            }
        })
        .await
}

/// Starts what carries the workload's connections and records.
async fn start_services(
    environment: &Environment,
    ingress: &Endpoint,
    boot: &BootId,
) -> Result<Pressure, InitError> {
    let Environment {
        config,
        agent,
        nsm,
        trust,
        clock,
        logs,
        capacity,
        ..
    } = environment;
    let network = Arc::new(config.network.clone());
    let out = egress::start(agent.clone(), Arc::clone(&network), *capacity, logs.clone()).await?;
    let listener = Listener::bind(ingress).doing(|| format!("listening on {ingress}"))?;
    let into = ingress::places(capacity);
    tokio::spawn(ingress::serve(
        listener,
        network,
        Arc::clone(&into),
        logs.clone(),
    ));
    api::start(Api {
        nsm: nsm.clone(),
        clock: clock.clone(),
        open_registers: Arc::new(config.attestation.open_registers.clone()),
        verifications: Verifications::new(Arc::clone(trust)),
    })
    .await?;
    tokio::spawn(logs.clone().send(agent.clone(), boot.clone()));
    Ok(Pressure {
        egress: out,
        ingress: into,
    })
}

fn write_runtime_config(config: &[u8]) -> Result<(), InitError> {
    let path = mounts::in_scratch(RUNTIME_CONFIG_PATH);
    fs::create_dir_all(path.parent().unwrap_or(&path))
        .and_then(|()| fs::write(&path, config))
        .doing(|| format!("writing {RUNTIME_CONFIG_PATH}"))
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
