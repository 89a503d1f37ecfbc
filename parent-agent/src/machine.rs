//! The machine of one enclave: started, or taken over if it is what was asked for.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use aws_lc_rs::digest::{SHA384, digest};
use enclave_host::console::Console;
use enclave_host::duration::milliseconds;
use enclave_host::guard::{Attached, Guard, GuardError};
use enclave_host::hypervisor::{Hypervisor, HypervisorError};
use enclave_host::image::{LowMemory, Pcrs, check_memory};
use enclave_host::state::{StateDir, Target};
use link::control::MAX_RUNTIME_CONFIG;
use manifest::{EnclaveName, HostConfig, MemoryMib};
use thiserror::Error;

use crate::attach::{self, AttachError, Facts};
use crate::exit::Exit;
use crate::ingress::OpenPort;
use crate::report::{Opening, Report, Reporter};

/// Console lines shown after an unexpected end.
const CONSOLE_TAIL: usize = 40;

/// What an enclave is, whichever hypervisor runs it.
#[derive(Debug)]
pub(crate) struct MachineConfig {
    /// Its name on this host.
    pub(crate) name: EnclaveName,
    /// Where enclaves' folders are.
    pub(crate) state: StateDir,
    /// The image, as it was named.
    pub(crate) image: PathBuf,
    /// The image's size.
    pub(crate) image_bytes: u64,
    /// What the image measures to.
    pub(crate) pcrs: Pcrs,
    /// What the image asks of the host.
    pub(crate) host: HostConfig,
    /// Its memory.
    pub(crate) memory: MemoryMib,
    /// Whether its registers read as zero.
    pub(crate) debug: bool,
    /// Handed to the workload.
    pub(crate) runtime_config: link::Bytes<MAX_RUNTIME_CONFIG>,
    /// Whether its console is printed.
    pub(crate) console: bool,
}

/// Why there is no machine.
#[derive(Debug, Error)]
pub enum MachineError {
    /// It can neither be started nor taken over.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// It has too little memory for its image.
    #[error(transparent)]
    Memory(#[from] LowMemory),
    /// Its hypervisor cannot start it.
    #[error(transparent)]
    Hypervisor(#[from] HypervisorError),
    /// Its guard failed.
    #[error(transparent)]
    Guard(#[from] GuardError),
    /// What it is cannot be written down.
    #[error("the enclave's folder cannot be written: {0}")]
    Folder(#[source] io::Error),
}

impl MachineError {
    /// The exit code that tells a script what to look at.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Memory(_) | Self::Attach(AttachError::Differs { .. }) => Exit::Usage,
            Self::Hypervisor(error) if error.is_about_the_image() => Exit::Image,
            Self::Attach(_) | Self::Hypervisor(_) | Self::Guard(_) | Self::Folder(_) => Exit::Host,
        }
    }
}

/// An enclave's machine: its guard, and the hypervisor that runs it.
pub(crate) struct Machine<H> {
    pub(crate) config: MachineConfig,
    pub(crate) hypervisor: H,
    pub(crate) guard: Guard,
}

impl MachineConfig {
    /// How commands name the enclave.
    fn target(&self) -> Target {
        self.state.target(&self.name)
    }

    /// A guard with a new folder, or with an enclave that runs. One that ended while
    /// it had no agent is reported and removed.
    pub(crate) async fn acquire(&self, reporter: &Reporter) -> Result<Guard, MachineError> {
        loop {
            let console = Console::new(self.console.then(|| reporter.viewer()));
            let mut guard = attach::acquire(&self.state, &self.name, &console).await?;
            if !guard.attached().is_some_and(|attached| attached.ended) {
                return Ok(guard);
            }
            let detail = match guard.exited().await {
                Ok(exit) => exit.to_string(),
                Err(error) => error.to_string(),
            };
            reporter.report(&Report::EndedAlone {
                detail: &detail,
                console: &guard.console().tail(CONSOLE_TAIL),
            });
            guard.finish().await?;
        }
    }

    /// What an enclave is that is started so.
    fn facts<H: Hypervisor>(&self, hypervisor: &H) -> Facts {
        let runtime_config = hex::encode(digest(&SHA384, &self.runtime_config));
        let mut options = hypervisor.options();
        options.push(("--hypervisor", H::NAME.to_owned()));
        options.push(("--runtime-config", runtime_config));
        let options = options
            .into_iter()
            .map(|(option, value)| (option.to_owned(), value))
            .collect();
        Facts::new(self.pcrs.clone(), self.host.clone(), options)
    }
}

impl<H: Hypervisor> Machine<H> {
    /// A machine in the guard's folder.
    pub(crate) fn new(config: MachineConfig, hypervisor: H, guard: Guard) -> Self {
        Self {
            config,
            hypervisor,
            guard,
        }
    }

    /// What the enclave in the guard's folder is, once it is there: a new one is
    /// prepared, one that runs already must be what was asked for.
    pub(crate) async fn prepare(&mut self) -> Result<Facts, MachineError> {
        let (config, folder) = (&self.config, self.guard.directory());
        let wanted = config.facts(&self.hypervisor);
        if self.guard.attached().is_some() {
            let found = Facts::read(folder, &config.target()).await?;
            found.check(&wanted, &config.target())?;
            return Ok(found);
        }
        if H::LIMITS_MEMORY {
            check_memory(config.image_bytes, &config.host, config.memory)?;
        }
        self.hypervisor.prepare()?;
        wanted.write(folder).await.map_err(MachineError::Folder)?;
        Ok(wanted)
    }

    /// How long ago the enclave was started, if it was taken over.
    pub(crate) fn age(&self) -> Option<Duration> {
        self.guard.attached().map(|attached| attached.age)
    }

    /// The console's last lines.
    pub(crate) fn console(&self) -> Vec<String> {
        self.guard.console().tail(CONSOLE_TAIL)
    }

    /// Reports what is about to be started, or was taken over.
    pub(crate) fn report(&self, facts: &Facts, ports: &[OpenPort], reporter: &Reporter) {
        let (config, guard) = (&self.config, &self.guard);
        let nsm_root = self
            .hypervisor
            .nsm_root()
            .map(|path| path.display().to_string());
        let opening = Opening {
            name: config.name.as_str(),
            target: &config.target().to_string(),
            image: &config.image.display().to_string(),
            hypervisor: H::NAME,
            debug: config.debug,
            pcrs: &config.pcrs,
            ports,
            state_directory: &guard.directory().display().to_string(),
            nsm_root: nsm_root.as_deref(),
        };
        reporter.report(&match guard.attached() {
            None => Report::Starting(opening),
            Some(Attached { age, .. }) => Report::Attached {
                opening,
                age_ms: milliseconds(age),
                ready: facts.history().ready,
            },
        });
    }

    /// Ends the machine and removes its folder, unless it `goes_on` without this
    /// agent.
    pub(crate) async fn close(self, goes_on: bool) -> Result<(), MachineError> {
        let Self {
            hypervisor, guard, ..
        } = self;
        hypervisor.finish().await;
        if guard.is_ours() && !goes_on {
            guard.finish().await?;
        } else {
            guard.detach();
        }
        Ok(())
    }
}
