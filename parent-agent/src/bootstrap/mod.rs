//! `parent-agent bootstrap`: makes an instance ready for its enclaves, and starts
//! them.
//!
//! A list of steps, each of which looks first whether it is done already: so it
//! can end anywhere, be killed anywhere, and be run again. After a step was done
//! it is looked at again, since the kernel gives what it has and not what it was
//! asked for. docs/bootstrap.md describes the steps.

mod args;
mod cpus;
mod doctor;
mod driver;
mod finding;
mod host;
mod image;
mod memory;
mod program;
mod reserved;
mod service;
mod unit;

use std::path::PathBuf;

use clap::ValueEnum;
use enclave_host::hypervisor::HypervisorKind;
use image_fetch::Cache;
use thiserror::Error;
use tokio::runtime::Runtime;

use crate::config::{Config, ConfigError, SourceError};
use crate::exit::Exit;

pub use args::{BootstrapArgs, DoctorArgs, HostArgs};

use finding::{Finding, Findings, State};
use host::Host;

/// Why the instance is not ready.
#[derive(Debug, Error)]
pub enum BootstrapError {
    /// There is no configuration.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A step has failed.
    #[error("step `{step}`: {reason}")]
    Step {
        /// The step.
        step: &'static str,
        /// Why, and what to do.
        reason: String,
        /// The exit code.
        exit: Exit,
    },
    /// Standard output cannot be written to.
    #[error("standard output cannot be written: {0}")]
    Output(#[from] std::io::Error),
}

impl From<ConfigError> for BootstrapError {
    fn from(error: ConfigError) -> Self {
        Self::Source(error.into())
    }
}

impl BootstrapError {
    /// The exit code that tells a script what to look at.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Source(SourceError::Config(_) | SourceError::Tag { .. }) => Exit::Usage,
            Self::Source(_) => Exit::Host,
            Self::Step { exit, .. } => *exit,
            Self::Output(_) => Exit::Failure,
        }
    }
}

/// What every step works on.
struct Setup<'a> {
    host: Host,
    config: Config,
    /// The configuration as it was read.
    text: String,
    hypervisor: HypervisorKind,
    cache: Cache,
    /// Folders other than the usual ones.
    image_dir: Option<PathBuf>,
    state_dir: Option<PathBuf>,
    /// This program's own file.
    agent: PathBuf,
    runtime: &'a Runtime,
}

impl<'a> Setup<'a> {
    fn new(args: HostArgs, runtime: &'a Runtime) -> Result<Self, BootstrapError> {
        let (text, found) = runtime.block_on(args.config.text())?;
        let config = Config::parse(&text, &found.to_string())?;
        let agent = std::env::current_exe()?;
        Ok(Self {
            host: Host::new(args.root),
            config,
            text,
            hypervisor: args.hypervisor,
            cache: Cache::new(args.image_dir.clone()),
            image_dir: args.image_dir,
            state_dir: args.state.state_dir,
            agent,
            runtime,
        })
    }

    /// Runs a program of the instance.
    fn run(&self, program: &str, arguments: &[&str]) -> Outcome<()> {
        program::run(self.runtime, program, arguments, program::TIMEOUT)
    }
}

/// Whether a step is done, in words.
enum Check {
    /// Nothing is to be done.
    Done(String),
    /// This is.
    Todo(String),
}

/// What a step's own functions say when it cannot be done: why, and what to do.
type Outcome<T> = Result<T, String>;

/// A step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Step {
    /// The kernel's device for enclaves.
    Driver,
    /// Huge pages.
    Memory,
    /// The pool of CPUs.
    Cpus,
    /// The images.
    Image,
    /// systemd's unit.
    Unit,
    /// The enclaves.
    Service,
}

/// In their order: memory early, before it is fragmented.
const STEPS: [Step; 6] = [
    Step::Driver,
    Step::Memory,
    Step::Cpus,
    Step::Image,
    Step::Unit,
    Step::Service,
];

impl Step {
    const fn name(self) -> &'static str {
        match self {
            Self::Driver => "driver",
            Self::Memory => "memory",
            Self::Cpus => "cpus",
            Self::Image => "image",
            Self::Unit => "unit",
            Self::Service => "service",
        }
    }

    const fn exit(self) -> Exit {
        match self {
            Self::Driver => Exit::NoDriver,
            Self::Memory => Exit::NoMemory,
            Self::Cpus => Exit::NoCpus,
            Self::Image => Exit::NoImage,
            Self::Unit => Exit::NoUnit,
            Self::Service => Exit::NoService,
        }
    }

    /// Other hypervisors take memory and CPUs as any process does.
    fn is_for(self, hypervisor: HypervisorKind) -> bool {
        hypervisor == HypervisorKind::Nitro
            || !matches!(self, Self::Driver | Self::Memory | Self::Cpus)
    }

    fn check(self, setup: &Setup<'_>) -> Outcome<Check> {
        match self {
            Self::Driver => Ok(driver::check(setup)),
            Self::Memory => memory::check(setup),
            Self::Cpus => cpus::check(setup),
            Self::Image => Ok(image::check(setup)),
            Self::Unit => unit::check(setup),
            Self::Service => service::check(setup),
        }
    }

    fn apply(self, setup: &Setup<'_>) -> Outcome<()> {
        match self {
            Self::Driver => driver::apply(setup),
            Self::Memory => memory::apply(setup),
            Self::Cpus => cpus::apply(setup),
            Self::Image => image::apply(setup),
            Self::Unit => unit::apply(setup),
            Self::Service => service::apply(setup),
        }
    }

    /// Takes back what was done, and says what that was.
    fn undo(self, setup: &Setup<'_>) -> Outcome<String> {
        match self {
            Self::Driver => Ok("stays loaded".to_owned()),
            Self::Memory => memory::undo(setup),
            Self::Cpus => cpus::undo(setup),
            Self::Image => Ok("images stay in their folder".to_owned()),
            Self::Unit => unit::undo(setup),
            Self::Service => service::undo(setup),
        }
    }
}

/// Makes the instance ready, says what it would do, or takes everything back.
pub fn run(args: BootstrapArgs, runtime: &Runtime) -> Result<Exit, BootstrapError> {
    let setup = Setup::new(args.host, runtime)?;
    let mut findings = Findings::new(args.json);
    let steps = STEPS.into_iter().filter(|step| {
        step.is_for(setup.hypervisor) && args.until.is_none_or(|last| *step <= last)
    });
    if args.undo {
        // Every step is tried; the first failure is the result.
        let mut result = Ok(Exit::Success);
        for step in steps.rev() {
            match step.undo(&setup) {
                Ok(text) => findings.add(Finding::new(step.name(), State::Undone, text))?,
                Err(reason) => {
                    findings.add(Finding::new(step.name(), State::Fail, reason.clone()))?;
                    result = result.and(Err(failed(step, reason)));
                }
            }
        }
        findings.finish()?;
        return result;
    }
    for step in steps {
        let check = step.check(&setup);
        let (state, text) = match check {
            Ok(Check::Done(text)) => (State::Ok, text),
            Ok(Check::Todo(text)) if args.dry_run => (State::Todo, text),
            Ok(Check::Todo(_)) => match carry_out(step, &setup) {
                Ok(text) => (State::Done, text),
                Err(reason) => (State::Fail, reason),
            },
            Err(reason) => (State::Fail, reason),
        };
        let is_over = state == State::Fail && !args.dry_run;
        findings.add(Finding::new(step.name(), state, text.clone()))?;
        if is_over {
            findings.finish()?;
            return Err(failed(step, text));
        }
    }
    let first = findings.first_failure();
    findings.finish()?;
    match first.and_then(|name| STEPS.into_iter().find(|step| step.name() == name)) {
        Some(step) => Ok(step.exit()),
        None => Ok(Exit::Success),
    }
}

/// Says what would hinder a bootstrap, or what is wrong with a running instance.
pub fn examine(
    args: DoctorArgs,
    is_running: bool,
    runtime: &Runtime,
) -> Result<Exit, BootstrapError> {
    let mut findings = Findings::new(args.json);
    let exit = doctor::examine(args.host, is_running, runtime, &mut findings)?;
    findings.finish()?;
    Ok(exit)
}

/// Does a step and looks whether it is done.
fn carry_out(step: Step, setup: &Setup<'_>) -> Outcome<String> {
    step.apply(setup)?;
    match step.check(setup)? {
        Check::Done(text) => Ok(text),
        Check::Todo(text) => Err(format!("it was done, and yet this is to do: {text}")),
    }
}

fn failed(step: Step, reason: String) -> BootstrapError {
    BootstrapError::Step {
        step: step.name(),
        reason,
        exit: step.exit(),
    }
}
