//! An enclave as ordinary processes: the image's file systems unpacked,
//! `enclave-init` in namespaces of its own, Unix sockets for vsock, the
//! software NSM. For development: nothing isolates it from the host.

mod subordinate;
mod tree;
mod users;

use std::fs;
use std::path::{Path, PathBuf};

use link::{Endpoint, port};
use manifest::{EnclaveName, MemoryMib};
use measurements::Measurements;
use tracing::warn;

use super::{
    Hypervisor, HypervisorError, Listen, SoftwareNsmArgs, Started, VSOCK_FOLDER, find_program,
    make_vsock_folder, report, software_nsm, wait_until_listening,
};
use crate::guard::{Guard, Process, SELF};
use crate::image::Image;

pub use tree::{SimTreeArgs, become_init};
pub use users::hold;

const NSM_SOCKET: &str = "nsm.sock";
const NSM: &str = "the software NSM";
/// Where the image's file systems are, in namespaces that see them.
const TREE: &str = "image";
/// What came of making them.
const REPORT: &str = "image.json";
/// What the init's process is called in messages.
const INIT: &str = "enclave-init";

/// What a simulated enclave is started with.
#[derive(Debug)]
pub struct SimOptions {
    /// The enclave's name.
    pub name: EnclaveName,
    /// Most that the image may unpack to.
    pub memory: MemoryMib,
    /// Whether registers read as zero.
    pub debug: bool,
    /// Where the software NSM's root is kept, if anywhere.
    pub nsm_root: Option<PathBuf>,
}

/// A simulated enclave.
#[derive(Debug)]
pub struct Sim {
    options: SimOptions,
    directory: PathBuf,
    sockets: PathBuf,
    /// The certificate of the software NSM's root.
    nsm_root: PathBuf,
    image: Image,
}

impl Sim {
    /// An enclave in its folder.
    pub fn new(image: Image, options: SimOptions, directory: &Path) -> Self {
        let folder = options.nsm_root.as_deref().unwrap_or(directory);
        Self {
            nsm_root: software_nsm::certificate(folder),
            options,
            directory: directory.to_owned(),
            sockets: directory.join(VSOCK_FOLDER),
            image,
        }
    }

    /// The process that is the security module: it outlives this one.
    fn nsm(&self) -> Result<Process, HypervisorError> {
        let measurements: Option<Measurements> =
            (!self.options.debug).then(|| self.image.measurements());
        let root = self.nsm_root.parent().unwrap_or(&self.directory);
        let args = SoftwareNsmArgs::new(self.nsm_socket(), root, measurements)?;
        Ok(process(NSM, args.arguments()))
    }

    fn nsm_socket(&self) -> PathBuf {
        self.directory.join(NSM_SOCKET)
    }

    /// The process that unpacks the image into `tree` and becomes its init.
    fn init(&self, tree: &Path, report: &Path) -> Process {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let find = |program: &str| find_program(Path::new(program), "").ok();
        let args = SimTreeArgs {
            tree: tree.to_owned(),
            report: report.to_owned(),
            image: self.image.path().to_owned(),
            device: self.image.file().device,
            inode: self.image.file().inode,
            ramdisks: self.image.ramdisks().into_iter().map(Into::into).collect(),
            memory_mib: self.options.memory,
            newuidmap: find("newuidmap"),
            newgidmap: find("newgidmap"),
            init: vec![
                "sim".to_owned(),
                "--tree".to_owned(),
                text(tree),
                "--sockets".to_owned(),
                text(&self.sockets),
                "--nsm".to_owned(),
                text(&self.nsm_socket()),
                "--nsm-root".to_owned(),
                text(&self.nsm_root),
            ],
        };
        process(INIT, args.arguments())
    }
}

/// A process of this very program.
fn process(name: &str, arguments: Vec<String>) -> Process {
    Process {
        name: name.to_owned(),
        program: SELF.into(),
        arguments,
        inherits_environment: false,
        temporary: None,
    }
}

impl Hypervisor for Sim {
    const NAME: &'static str = "sim";
    const LIMITS_MEMORY: bool = false;

    fn options(&self) -> Vec<(&'static str, String)> {
        vec![
            ("--memory-mib", self.options.memory.to_string()),
            ("--debug", self.options.debug.to_string()),
            ("--software-nsm-root", self.nsm_root.display().to_string()),
        ]
    }

    fn listen(&self) -> Listen {
        let socket = |port| Endpoint::Unix {
            path: self.sockets.join(format!("host_{port}")),
        };
        Listen {
            agent: socket(port::AGENT),
            heartbeat: socket(port::HEARTBEAT),
        }
    }

    fn nsm_root(&self) -> Option<&Path> {
        Some(&self.nsm_root)
    }

    fn prepare(&mut self) -> Result<(), HypervisorError> {
        let folder = self.nsm_root.parent().unwrap_or(&self.directory);
        software_nsm::make_root(folder)?;
        make_vsock_folder(&self.sockets)
    }

    async fn start(&mut self, guard: &mut Guard) -> Result<(), HypervisorError> {
        guard.spawn(self.nsm()?).await?;
        let tree = self.directory.join(TREE);
        fs::create_dir(&tree).map_err(HypervisorError::io(&tree))?;
        wait_until_listening(NSM, &self.nsm_socket(), guard).await?;
        let report = self.directory.join(REPORT);
        guard.spawn(self.init(&tree, &report)).await?;
        if let Some(notice) = report::wait(INIT, &report, guard).await? {
            warn!("{notice}");
        }
        Ok(())
    }

    fn started(&self) -> Started {
        Started {
            cid: None,
            init: Endpoint::Unix {
                path: self.sockets.join(format!("enclave_{}", port::INIT)),
            },
        }
    }

    async fn finish(self) {}
}
