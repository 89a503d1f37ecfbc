//! An enclave as ordinary processes: the image's file systems unpacked,
//! `enclave-init` in namespaces of its own, Unix sockets for vsock, the
//! software NSM. For development: nothing isolates it from the host.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use link::{Endpoint, port};
use manifest::{EnclaveName, MemoryMib};
use measurements::Measurements;
use tokio::task::JoinHandle;

use super::{
    Hypervisor, HypervisorError, Listen, SoftwareNsmArgs, Started, VSOCK_FOLDER,
    make_scratch_folder, make_vsock_folder, software_nsm, wait_until_listening,
};
use crate::guard::{Guard, Process, SELF};
use crate::image::Image;
use crate::ramdisk::{UnpackError, Unpacker};

const NSM_SOCKET: &str = "nsm.sock";
const NSM: &str = "the software NSM";

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
    image: Option<Image>,
    interrupted: Arc<AtomicBool>,
    unpacking: Option<JoinHandle<Result<(), HypervisorError>>>,
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
            image: Some(image),
            interrupted: Arc::default(),
            unpacking: None,
        }
    }

    /// The process that is the security module: it outlives this one.
    fn nsm(&self, image: &Image) -> Result<Process, HypervisorError> {
        let measurements: Option<Measurements> =
            (!self.options.debug).then(|| image.measurements());
        let root = self.nsm_root.parent().unwrap_or(&self.directory);
        let args = SoftwareNsmArgs::new(self.nsm_socket(), root, measurements)?;
        Ok(Process {
            name: NSM.to_owned(),
            program: SELF.into(),
            arguments: args.arguments(),
            inherits_environment: false,
            temporary: None,
        })
    }

    fn nsm_socket(&self) -> PathBuf {
        self.directory.join(NSM_SOCKET)
    }

    /// Unpacks in a thread of its own, which [`Hypervisor::finish`] waits for.
    async fn unpack(&mut self, image: Image, tree: &Path) -> Result<(), HypervisorError> {
        let tree = tree.to_owned();
        let memory = self.options.memory;
        let interrupted = Arc::clone(&self.interrupted);
        let unpacking = self.unpacking.insert(tokio::task::spawn_blocking(move || {
            unpack(image, &tree, memory, &interrupted)
        }));
        let result = unpacking.await;
        self.unpacking = None;
        result.unwrap_or(Err(HypervisorError::Unpack(UnpackError::Interrupted)))
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
        let Some(image) = self.image.take() else {
            return Err(HypervisorError::NoInit);
        };
        guard.spawn(self.nsm(&image)?).await?;
        let tree = make_scratch_folder(&self.directory, &self.options.name)?;
        self.unpack(image, &tree).await?;
        wait_until_listening(NSM, &self.nsm_socket(), guard).await?;
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let process = Process {
            name: "enclave-init".to_owned(),
            program: tree.join("init"),
            arguments: vec![
                "sim".to_owned(),
                "--tree".to_owned(),
                text(&tree),
                "--sockets".to_owned(),
                text(&self.sockets),
                "--nsm".to_owned(),
                text(&self.nsm_socket()),
                "--nsm-root".to_owned(),
                text(&self.nsm_root),
            ],
            inherits_environment: false,
            temporary: None,
        };
        guard.spawn(process).await?;
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

    async fn finish(self) {
        self.interrupted.store(true, Ordering::Relaxed);
        if let Some(unpacking) = self.unpacking {
            let _ = unpacking.await;
        }
    }
}

fn unpack(
    mut image: Image,
    tree: &Path,
    memory: MemoryMib,
    interrupted: &AtomicBool,
) -> Result<(), HypervisorError> {
    let mut unpacker = Unpacker::new(tree, memory, interrupted);
    for ramdisk in image.ramdisks() {
        let contents = image.contents(ramdisk).map_err(UnpackError::Read)?;
        unpacker.unpack(contents)?;
    }
    let is_init = fs::symlink_metadata(tree.join("init"))
        .is_ok_and(|init| init.is_file() && init.permissions().mode() & 0o100 != 0);
    if is_init {
        Ok(())
    } else {
        Err(HypervisorError::NoInit)
    }
}
