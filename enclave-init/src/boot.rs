//! The boot, step by step. Each step is timed; the first that fails ends it.

use std::fs;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use attestation::nsm::Nsm;
use aws_lc_rs::digest::{SHA384, digest};
use eif::Pcr;
use link::control::{BootId, FromInit};
use link::{Bytes, Listener, Text};
use manifest::{LogRelease, MAX_CONFIG_BYTES, MEASURED_CONFIG_PATH, MeasuredConfig};

use crate::args::Simulation;
use crate::control::{self, Session};
use crate::error::{Doing, InitError};
use crate::logs::Logs;
use crate::parent::{self, Parent};
use crate::security_module::SecurityModule;
use crate::sim::Descriptors;
use crate::workload::RUNTIME_CONFIG_PATH;
use crate::{api, egress, entropy, ingress, mounts, network};

/// The register that the runtime configuration is measured into.
const RUNTIME_CONFIG_PCR: u16 = 16;
/// The folder of the application's file system in the ramdisks' tree.
const ROOT: &str = "rootfs";

/// An enclave that has booted, up to its workload.
pub(crate) struct Booted {
    pub(crate) config: Arc<MeasuredConfig>,
    pub(crate) parent: Parent,
    pub(crate) session: Session,
    pub(crate) boot: BootId,
    pub(crate) nsm: SecurityModule,
    pub(crate) logs: Logs,
    /// Whether the workload's lines may leave the enclave.
    pub(crate) release: bool,
    pub(crate) steps: Steps,
}

/// A boot that failed, with what is known of the parent.
pub(crate) struct Failed {
    pub(crate) step: &'static str,
    pub(crate) error: InitError,
    pub(crate) parent: Option<Parent>,
    pub(crate) session: Option<Session>,
    pub(crate) boot: BootId,
}

/// The steps and their times.
#[derive(Debug)]
pub(crate) struct Steps {
    start: Instant,
    current: &'static str,
    done: Vec<(&'static str, u64, u64)>,
}

impl Steps {
    fn new(start: Instant) -> Self {
        Self {
            start,
            current: "start",
            done: Vec::new(),
        }
    }

    /// Runs one step.
    async fn run<T>(
        &mut self,
        name: &'static str,
        step: impl Future<Output = Result<T, InitError>>,
    ) -> Result<T, InitError> {
        self.current = name;
        let begun = self.elapsed_us();
        let result = step.await?;
        let ended = self.elapsed_us();
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

/// What the steps leave behind for the next ones, and for a failure's report.
#[derive(Default)]
struct Found {
    parent: Option<Parent>,
    session: Option<Session>,
}

/// Boots.
pub(crate) async fn boot(
    start: Instant,
    simulation: Option<&Simulation>,
) -> Result<Booted, Failed> {
    let mut steps = Steps::new(start);
    let mut found = Found::default();
    let mut boot = BootId::default();
    match run_steps(&mut steps, &mut found, &mut boot, simulation).await {
        Ok((config, nsm, logs, release)) => match (found.parent, found.session) {
            (Some(parent), Some(session)) => Ok(Booted {
                config,
                parent,
                session,
                boot,
                nsm,
                logs,
                release,
                steps,
            }),
            (parent, session) => Err(Failed {
                step: steps.current,
                error: InitError::NoParent,
                parent,
                session,
                boot,
            }),
        },
        Err(error) => Err(Failed {
            step: steps.current,
            error,
            parent: found.parent,
            session: found.session,
            boot,
        }),
    }
}

async fn run_steps(
    steps: &mut Steps,
    found: &mut Found,
    boot: &mut BootId,
    simulation: Option<&Simulation>,
) -> Result<(Arc<MeasuredConfig>, SecurityModule, Logs, bool), InitError> {
    let tree = simulation.map_or(PathBuf::from("/"), |simulation| simulation.tree.clone());
    let descriptors = steps
        .run("mounts", async {
            if simulation.is_none() {
                mounts::mount_early()?;
            }
            simulation
                .map(Descriptors::open)
                .transpose()
                .doing(|| "opening the simulation's sockets".to_owned())
        })
        .await?;
    let config = steps
        .run("configuration", async { read_config(&tree) })
        .await?;
    steps
        .run("root", async {
            mounts::enter(&tree.join(ROOT), simulation.is_some())?;
            mounts::write_system_files(&config.name)
        })
        .await?;
    steps
        .run("loopback", async { network::bring_up_loopback() })
        .await?;
    let nsm_path = descriptors.as_ref().map(Descriptors::nsm);
    // Who answers the heartbeat is told apart from a failed boot only by it.
    let parent = steps.run("heartbeat", parent::find(descriptors)).await?;
    let agent = parent.agent();
    let listener_endpoint = parent.ingress();
    found.parent = Some(parent);

    let mut nsm = steps
        .run("nsm", async {
            Ok(match &nsm_path {
                Some(path) => Nsm::socket(path)?,
                None => Nsm::device()?,
            })
        })
        .await?;
    let debug = steps
        .run("entropy", async {
            if simulation.is_none() {
                entropy::seed(&mut nsm)?;
            }
            let seed = nsm.random()?;
            *boot = Bytes::new(seed.get(..16).unwrap_or_default()).unwrap_or_default();
            Ok(nsm.describe_pcr(0)?.0 == Pcr::ZERO)
        })
        .await?;
    let (session, runtime_config) = steps.run("control", control::open(&agent, boot)).await?;
    found.session = Some(session);
    steps
        .run("runtime-configuration", async {
            nsm.extend_pcr(
                RUNTIME_CONFIG_PCR,
                digest(&SHA384, &runtime_config).as_ref(),
            )?;
            nsm.lock_pcr(RUNTIME_CONFIG_PCR)?;
            let path = Path::new(RUNTIME_CONFIG_PATH);
            fs::create_dir_all(path.parent().unwrap_or(path))
                .and_then(|()| fs::write(path, &*runtime_config))
                .doing(|| format!("writing {RUNTIME_CONFIG_PATH}"))
        })
        .await?;

    let (nsm, logs) = (SecurityModule::new(nsm), Logs::new());
    let release = match config.logs.release {
        LogRelease::Always => true,
        LogRelease::DebugOnly => debug,
        LogRelease::Never => false,
    };
    steps
        .run("services", async {
            tokio::spawn(logs.clone().send(agent.clone(), boot.clone()));
            let network = Arc::new(config.network.clone());
            egress::start(agent, Arc::clone(&network), logs.clone()).await?;
            let listener = Listener::bind(&listener_endpoint)
                .doing(|| format!("listening on {listener_endpoint}"))?;
            tokio::spawn(ingress::serve(listener, network, logs.clone()));
            api::start(nsm.clone()).await
        })
        .await?;
    Ok((Arc::new(config), nsm, logs, release))
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
