//! The boot, step by step. Each step is timed; the first that fails ends it.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use link::control::FromInit;
use link::port::HOST_CID;
use link::{BootId, EndCode, Endpoint};
use manifest::MeasuredConfig;
use measurements::Pcr;

use crate::args::Simulation;
use crate::clock::{self, Clock};
use crate::control::{self, Session};
use crate::error::InitError;
use crate::logs::Logs;
use crate::parent::{self, Parent, Search};
use crate::security_module::SecurityModule;
use crate::self_check::{Finding, Signing, check_itself};
use crate::services::{Ingress, Running, Services};
use crate::steps::Steps;
use crate::system::System;
use crate::workload::StandingBy;
use crate::{entropy, registers, runtime_config};

/// An enclave that has booted, up to its workload.
pub(crate) struct Booted {
    pub(crate) config: Arc<MeasuredConfig>,
    pub(crate) workload: StandingBy,
    pub(crate) agent: Endpoint,
    pub(crate) session: Session,
    pub(crate) boot: BootId,
    pub(crate) nsm: SecurityModule,
    pub(crate) self_check: Finding,
    pub(crate) clock: Clock,
    /// What there is to say of how the clock was set.
    pub(crate) clock_lines: Vec<clock::Line>,
    pub(crate) logs: Logs,
    pub(crate) services: Running,
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

/// Boots.
pub(crate) async fn boot(
    start: Instant,
    simulation: Option<&Simulation>,
) -> Result<Booted, Failed> {
    let mut steps = Steps::new(start);
    let mut reached = Reached::default();
    let result = run_steps(&mut steps, &mut reached, simulation).await;
    let result = result.and_then(|environment| match reached.session.take() {
        Some(session) => Ok((session, environment)),
        None => Err(InitError::NoParent),
    });
    match result {
        Ok((session, environment)) => Ok(Booted {
            config: environment.config,
            workload: environment.workload,
            agent: environment.agent,
            session,
            boot: reached.boot,
            nsm: environment.nsm,
            self_check: environment.self_check,
            clock: environment.clock,
            clock_lines: environment.clock_lines,
            logs: environment.logs,
            services: environment.services,
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
    config: Arc<MeasuredConfig>,
    workload: StandingBy,
    agent: Endpoint,
    nsm: SecurityModule,
    self_check: Finding,
    clock: Clock,
    clock_lines: Vec<clock::Line>,
    logs: Logs,
    services: Running,
}

async fn run_steps(
    steps: &mut Steps,
    reached: &mut Reached,
    simulation: Option<&Simulation>,
) -> Result<Environment, InitError> {
    let System {
        config,
        trust,
        workload,
        network,
        capacity,
        search,
        reset,
        clock,
        nsm,
    } = System::prepare(steps, &mut reached.search, simulation).await?;
    let parent = steps
        .run(EndCode::BootHeartbeat, parent::find(&search))
        .await?;
    reached.parent = Some(parent);
    if let (Some(reset), Parent::Vsock(HOST_CID)) = (reset, parent) {
        reset.by_triple_fault();
    }
    let agent = parent.agent();

    let (nsm, first) = steps
        .run(EndCode::BootNsm, async { Ok(nsm.finish().await?) })
        .await?;
    let debug = steps
        .run(EndCode::BootEntropy, async {
            let (drawn, pcr0) = first?;
            if let Some(seed) = &drawn.seed {
                entropy::check_generator()?;
                entropy::credit(seed)?;
            }
            reached.boot = drawn.boot;
            Ok(pcr0 == Pcr::ZERO)
        })
        .await?;
    // Before anything that has a time, or judges one.
    let (clock, clock_lines) = steps
        .run(EndCode::BootClock, async {
            Ok(Clock::set(clock, nsm.clone(), simulation.is_some()).await)
        })
        .await?;
    let (session, given) = steps
        .run(EndCode::BootControl, control::open(&agent, &reached.boot))
        .await?;
    reached.session = Some(session);
    steps
        .run(EndCode::BootRuntimeConfiguration, async {
            runtime_config::measure(&nsm, &given).await?;
            runtime_config::write(&given, config.workloads.iter().count())
        })
        .await?;

    let registers = registers::measure_and_lock(&nsm, &config);
    steps.run(EndCode::BootRegisters, registers).await?;

    let signing = match parent {
        Parent::Vsock(HOST_CID) => Signing::Perhaps,
        Parent::Vsock(_) | Parent::Simulated(_) => Signing::Always,
    };
    let self_check = check_itself(
        steps,
        &mut reached.self_check,
        &nsm,
        &trust,
        &config.attestation,
        signing,
        || clock.known_ms(),
    )
    .await?;

    let logs = Logs::new(config.logs.clone(), debug);
    let services = Services {
        config: &config,
        agent: &agent,
        ingress: Ingress {
            agent: parent.ingress(),
            workload: network,
        },
        boot: &reached.boot,
        nsm: &nsm,
        trust: &trust,
        clock: &clock,
        logs: &logs,
        capacity,
        one_user: simulation.is_some_and(Simulation::has_one_user),
        measurements: self_check.measurements(&config.name),
        runtime_config: Bytes::copy_from_slice(&given),
    };
    let services = steps.run(EndCode::BootServices, services.start()).await?;
    Ok(Environment {
        config,
        workload,
        agent,
        nsm,
        self_check,
        clock,
        clock_lines,
        logs,
        services,
    })
}
