//! An enclave on AWS Nitro hardware.
//!
//! The machine lives as long as somebody has its descriptor open: a process of its
//! own ([`serve`]), which the guard starts as it starts QEMU, creates the machine,
//! loads the image into it, starts it and waits for its end. So the enclave
//! outlives the agent here too.
//!
//! The `nitro-enclaves` crate does the same calls, but wants the whole image in
//! memory, and never unmaps.

pub mod driver;
mod error;
mod launch;
mod node;

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use link::{Endpoint, port};
use manifest::{Cpus, EnclaveName, MemoryMib};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::io::AsyncWriteExt;
use tracing::{info, warn};

use super::report::{self, Report};
use super::{Hypervisor, HypervisorError, Listen, Started};
use crate::guard::{Guard, Process, SELF};

use driver::{DEVICE, Driver};
use launch::Plan;

/// What the process is called in messages.
const NAME: &str = "nitro-enclave";
/// What came of the launch.
const REPORT: &str = "launch.json";
/// The first context identifier that is nobody's: 0 to 3 are the hypervisor, the
/// host itself and the parent.
const FIRST_CID: u32 = 16;
/// Identifiers are chosen from so many.
const CIDS: u32 = 1 << 30;
/// Every identifier of this machine, to listen on.
pub const CID_ANY: u32 = u32::MAX;
/// The hypervisor, and what is added to an enclave's identifier for the port of
/// its console, which only debug mode has.
const CID_HYPERVISOR: u32 = 0;
const CONSOLE_BASE: u32 = 10_000;
/// How long the console may take to be there.
const CONSOLE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

/// What an enclave is started with.
#[derive(Debug)]
pub struct NitroOptions {
    /// The enclave's name.
    pub name: EnclaveName,
    /// The image.
    pub image: PathBuf,
    /// Virtual CPUs.
    pub cpus: Cpus,
    /// Memory.
    pub memory: MemoryMib,
    /// Whether it runs in debug mode.
    pub debug: bool,
}

/// An enclave on the hardware.
#[derive(Debug)]
pub struct Nitro {
    options: NitroOptions,
}

impl Nitro {
    /// An enclave.
    pub fn new(options: NitroOptions) -> Self {
        Self { options }
    }

    /// Its memory in bytes, in whole pages.
    fn memory(&self) -> u64 {
        launch::whole_pages(self.options.memory.bytes())
    }

    /// Its context identifier, which an agent that takes it over finds again.
    fn cid(&self) -> u32 {
        let name = self.options.name.as_str();
        FIRST_CID + crc32fast::hash(name.as_bytes()) % CIDS
    }
}

impl Hypervisor for Nitro {
    const NAME: &'static str = "nitro";
    const LIMITS_MEMORY: bool = true;

    fn options(&self) -> Vec<(&'static str, String)> {
        vec![
            ("--cpus", self.options.cpus.to_string()),
            ("--memory-mib", self.options.memory.to_string()),
            ("--debug", self.options.debug.to_string()),
        ]
    }

    fn listen(&self) -> Listen {
        let socket = |port| Endpoint::Vsock { cid: CID_ANY, port };
        Listen {
            agent: socket(port::AGENT),
            heartbeat: socket(port::HEARTBEAT),
        }
    }

    fn nsm_root(&self) -> Option<&Path> {
        None
    }

    fn prepare(&mut self) -> Result<(), HypervisorError> {
        let (given, memory) = (self.options.memory.bytes(), self.memory());
        if memory != given {
            let (given, mib) = (self.options.memory, memory >> 20);
            info!("the enclave has {mib} MiB of memory instead of {given}: huge pages have 2 MiB");
        }
        File::options()
            .read(true)
            .write(true)
            .open(DEVICE)
            .map(drop)
            .map_err(|error| HypervisorError::Device(error::opening(&error)))
    }

    async fn start(&mut self, guard: &mut Guard) -> Result<(), HypervisorError> {
        let report = guard.directory().join(REPORT);
        let mut arguments = vec![
            NAME.to_owned(),
            report.display().to_string(),
            self.options.image.display().to_string(),
            self.cid().to_string(),
            self.options.cpus.to_string(),
            (self.memory() >> 20).to_string(),
        ];
        if self.options.debug {
            arguments.push("--debug".to_owned());
        }
        let process = Process {
            name: NAME.to_owned(),
            program: SELF.into(),
            arguments,
            inherits_environment: false,
            temporary: None,
        };
        guard.spawn(process).await?;
        if let Some(notice) = report::wait(NAME, &report, guard).await? {
            warn!("{notice}");
        }
        Ok(())
    }

    fn started(&self) -> Started {
        Started {
            cid: Some(self.cid()),
            init: Endpoint::Vsock {
                cid: self.cid(),
                port: port::INIT,
            },
        }
    }

    async fn finish(self) {}
}

/// The arguments of the hidden command `nitro-enclave`.
#[derive(Debug, Args)]
pub struct NitroEnclaveArgs {
    /// The file that says what came of it.
    report: PathBuf,
    /// The image.
    image: PathBuf,
    /// The context identifier.
    cid: u32,
    /// Virtual CPUs.
    cpus: Cpus,
    /// Memory in MiB.
    memory: MemoryMib,
    /// Debug mode, with a console.
    #[arg(long)]
    debug: bool,
}

/// Is the enclave until it ends.
pub async fn serve(args: NitroEnclaveArgs) -> anyhow::Result<()> {
    let image = args.image;
    let plan = Plan {
        memory: args.memory.bytes(),
        cpus: args.cpus.into(),
        cid: args.cid,
        debug: args.debug,
        node: node::of_the_pool(Path::new("/sys")),
    };
    let launched = tokio::task::spawn_blocking(move || launch(&plan, &image)).await?;
    let report = match &launched {
        Ok((_, notice)) => Report::Done {
            notice: notice.clone(),
        },
        Err(error) => Report::Failed {
            reason: format!("the enclave cannot be started: {error:#}"),
            is_about_the_image: false,
        },
    };
    report
        .write(&args.report)
        .with_context(|| format!("cannot write {}", args.report.display()))?;
    let (machine, _) = launched?;
    let ended = tokio::task::spawn_blocking(move || wait_for_end(&machine));
    if args.debug {
        tokio::spawn(console(args.cid));
    }
    Ok(ended.await??)
}

/// Launches an enclave. Gives what there is to say of it, too.
fn launch(plan: &Plan, image: &Path) -> anyhow::Result<(OwnedFd, Option<String>)> {
    let file = File::open(image).with_context(|| image.display().to_string())?;
    let size = file.metadata()?.len();
    let taken = plan.node.map(|node| (node, driver::take_pages_of(node)));
    // The driver refuses them if it matters.
    let notice = taken.and_then(|(node, taken)| {
        let error = taken.err()?;
        Some(format!(
            "huge pages may be of another NUMA node than {node}: {error}"
        ))
    });
    let driver =
        Driver::open(Path::new(DEVICE)).map_err(|e| anyhow::anyhow!(error::opening(&e)))?;
    let machine = launch::launch(&driver, plan, file, size)?;
    Ok((machine.into(), notice))
}

/// Waits until the driver says that the machine has ended.
fn wait_for_end(machine: &OwnedFd) -> nix::Result<()> {
    let mut machine = [PollFd::new(machine.as_fd(), PollFlags::POLLIN)];
    loop {
        match poll(&mut machine, PollTimeout::NONE) {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Copies the console to standard output until it ends.
async fn console(cid: u32) {
    let endpoint = Endpoint::Vsock {
        cid: CID_HYPERVISOR,
        port: cid.saturating_add(CONSOLE_BASE),
    };
    let copied = async {
        let mut stream = link::connect(&endpoint, CONSOLE_TIMEOUT).await?;
        let mut stdout = tokio::io::stdout();
        tokio::io::copy(&mut stream, &mut stdout).await?;
        stdout.flush().await
    };
    if let Err(error) = copied.await {
        warn!(%error, "the enclave's console cannot be read");
    }
}
