//! An enclave as ordinary processes: the image's file systems unpacked,
//! `enclave-init` in namespaces of its own, Unix sockets for vsock, the
//! software NSM. For development: nothing isolates it from the host.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use attestation::software_nsm::{Identity, SoftwareNsm, serve};
use eif::Measurements;
use link::{Endpoint, port};
use manifest::{EnclaveName, MemoryMib};
use tokio::net::UnixListener;
use tokio::task::JoinHandle;
use tracing::error;

use super::{
    Hypervisor, HypervisorError, Listen, Started, make_scratch_folder, make_vsock_folder,
    next_exit, random_hex, software_nsm,
};
use crate::guard::{Guard, Process};
use crate::image::Image;
use crate::ramdisk::{UnpackError, Unpacker};

const NSM_SOCKET: &str = "nsm.sock";
/// The instance that the software NSM names: none.
const INSTANCE_ID: &str = "i-00000000000000000";

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
    nsm_root: PathBuf,
    image: Option<Image>,
    interrupted: Arc<AtomicBool>,
    unpacking: Option<JoinHandle<Result<(), HypervisorError>>>,
    nsm: JoinHandle<()>,
}

impl Sim {
    /// Prepares the enclave in its folder, and serves its software NSM.
    pub fn new(
        image: Image,
        options: SimOptions,
        directory: &Path,
    ) -> Result<Self, HypervisorError> {
        let sockets = make_vsock_folder(directory)?;
        let (root, nsm_root) = software_nsm::root(options.nsm_root.as_deref(), directory)?;
        let measurements: Option<Measurements> = (!options.debug).then(|| image.measurements());
        let identity = Identity {
            instance_id: INSTANCE_ID.to_owned(),
            enclave_id: format!("enc{}", random_hex()?),
            measurements,
        };
        let module =
            SoftwareNsm::new(identity, root).map_err(|error| HypervisorError::NsmRoot {
                path: nsm_root.clone(),
                reason: error.to_string(),
            })?;
        let path = directory.join(NSM_SOCKET);
        let listener = UnixListener::bind(&path).map_err(HypervisorError::io(&path))?;
        let nsm = tokio::spawn(async move {
            if let Err(error) = serve(listener, module).await {
                error!(%error, "the software NSM has failed");
            }
        });
        Ok(Self {
            options,
            directory: directory.to_owned(),
            sockets,
            nsm_root,
            image: Some(image),
            interrupted: Arc::default(),
            unpacking: None,
            nsm,
        })
    }

    /// Unpacks in a thread of its own, which [`Hypervisor::finish`] waits for.
    async fn unpack(&mut self, tree: &Path) -> Result<(), HypervisorError> {
        let Some(image) = self.image.take() else {
            return Err(HypervisorError::NoInit);
        };
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

    async fn start(&mut self, guard: &mut Guard) -> Result<Started, HypervisorError> {
        let tree = make_scratch_folder(&self.directory, &self.options.name)?;
        self.unpack(&tree).await?;
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
                text(&self.directory.join(NSM_SOCKET)),
            ],
            inherits_environment: false,
            temporary: None,
        };
        guard.spawn(process).await?;
        Ok(Started {
            cid: None,
            init: Endpoint::Unix {
                path: self.sockets.join(format!("enclave_{}", port::INIT)),
            },
        })
    }

    async fn ended(&mut self, guard: &mut Guard) -> String {
        next_exit(guard).await
    }

    async fn finish(self) {
        self.interrupted.store(true, Ordering::Relaxed);
        if let Some(unpacking) = self.unpacking {
            let _ = unpacking.await;
        }
        self.nsm.abort();
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
