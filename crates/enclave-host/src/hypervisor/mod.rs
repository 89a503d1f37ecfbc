//! What runs an enclave.

mod nitro;
mod qemu;
mod report;
mod sim;
mod software_nsm;

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;
use link::Endpoint;
use manifest::EnclaveName;
use thiserror::Error;
use tokio::time::{Instant, sleep};

use crate::guard::{Guard, GuardError};
use crate::image::Image;
use crate::ramdisk::UnpackError;
use crate::state::TREE_LINK;

pub use nitro::driver as nitro_driver;
pub use nitro::{CID_ANY, Nitro, NitroEnclaveArgs, NitroOptions, serve as serve_nitro_enclave};
pub use qemu::{Accelerator, Qemu, QemuOptions};
pub use sim::{
    Sim, SimOptions, SimTreeArgs, become_init as become_sim_init, hold as hold_sim_users,
};
pub use software_nsm::{SoftwareNsmArgs, serve as serve_software_nsm};

/// Where sockets that stand for vsock ports lie in an enclave's folder.
const VSOCK_FOLDER: &str = "vsock";
/// How long a helper may take to listen.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(10);
const LISTEN_POLL: Duration = Duration::from_millis(2);
/// The flag of a listening socket in `/proc/net/unix` (`__SO_ACCEPTCON`).
const LISTENING: &str = "00010000";

/// What runs an enclave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum HypervisorKind {
    /// The image's init as an ordinary process in namespaces: no isolation from the host.
    Sim,
    /// QEMU's `nitro-enclave` machine.
    Qemu,
    /// AWS Nitro hardware, through the kernel's driver.
    Nitro,
}

/// Which hypervisor runs an enclave, and with what.
#[derive(Debug)]
pub enum HypervisorConfig {
    /// A simulation of the image.
    Sim(Box<Image>, SimOptions),
    /// A virtual machine.
    Qemu(QemuOptions),
    /// Nitro hardware.
    Nitro(NitroOptions),
}

/// Where the agent must listen before the enclave is started.
#[derive(Debug, Clone)]
pub struct Listen {
    /// For control, logs and egress.
    pub agent: Endpoint,
    /// For the heartbeat.
    pub heartbeat: Endpoint,
}

/// What is known of an enclave that was started.
#[derive(Debug, Clone)]
pub struct Started {
    /// Its context identifier, where it has one.
    pub cid: Option<u32>,
    /// Where its init listens for ingress.
    pub init: Endpoint,
}

/// One way to run an enclave. Processes are started through the enclave's
/// guard, and end with it; what they print is the console. For an enclave that
/// was taken over neither [`prepare`](Self::prepare) nor [`start`](Self::start)
/// is called.
pub trait Hypervisor {
    /// The name that people know it by.
    const NAME: &'static str;
    /// Whether the enclave has the memory that it is given, and no more.
    const LIMITS_MEMORY: bool;

    /// What an enclave is started with and keeps: the options' names and values.
    fn options(&self) -> Vec<(&'static str, String)>;

    /// Where the agent must listen.
    fn listen(&self) -> Listen;

    /// The file with the root that documents lead to, if it is not AWS's.
    fn nsm_root(&self) -> Option<&Path>;

    /// Checks what the enclave needs, and makes what must be there before the
    /// agent listens.
    fn prepare(&mut self) -> Result<(), HypervisorError>;

    /// Starts the enclave. May be dropped half-way; [`finish`](Self::finish) follows then.
    fn start(&mut self, guard: &mut Guard) -> impl Future<Output = Result<(), HypervisorError>>;

    /// Where an enclave that runs is found.
    fn started(&self) -> Started;

    /// Ends what this process itself does for the enclave. The guard does the rest.
    fn finish(self) -> impl Future<Output = ()>;
}

/// Why an enclave could not be started.
#[derive(Debug, Error)]
pub enum HypervisorError {
    /// A program is not installed.
    #[error("`{}` is not {place}: {advice}", program.display())]
    Missing {
        /// The program.
        program: PathBuf,
        /// Where it was looked for.
        place: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// The image's file systems cannot be unpacked.
    #[error("the image cannot be unpacked: {0}")]
    Unpack(#[from] UnpackError),
    /// The image is not the one that was measured.
    #[error("the image {} was replaced while the enclave was started: start it again", .0.display())]
    Replaced(PathBuf),
    /// This user may not make namespaces.
    #[error(
        "{what}: {source}; allow user namespaces (sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, user.max_user_namespaces above 0), or run as root outside a container"
    )]
    Namespaces {
        /// What failed.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A process of the enclave's has failed, and has said why.
    #[error("{reason}")]
    Failed {
        /// Why.
        reason: String,
        /// Whether another image would do.
        is_about_the_image: bool,
    },
    /// The image's first ramdisk is not one of ours.
    #[error(
        "the image has no executable `init`: build it with `image-builder build`, and enclave-init as its init"
    )]
    NoInit,
    /// The guard failed.
    #[error(transparent)]
    Guard(#[from] GuardError),
    /// The software NSM's root cannot be used.
    #[error("the software NSM's root {} cannot be used: {reason}", path.display())]
    NsmRoot {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A helper did not come up.
    #[error("{name} did not come up: {reason}")]
    Helper {
        /// The program.
        name: &'static str,
        /// Why.
        reason: String,
    },
    /// The device for enclaves cannot be used.
    #[error("{0}")]
    Device(String),
    /// The file system refused.
    #[error("{} cannot be used: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl HypervisorError {
    /// Whether another image would do.
    pub fn is_about_the_image(&self) -> bool {
        matches!(
            self,
            Self::NoInit
                | Self::Failed {
                    is_about_the_image: true,
                    ..
                }
                | Self::Unpack(
                    UnpackError::Archive(_)
                        | UnpackError::Compression(_)
                        | UnpackError::Escape(_)
                        | UnpackError::NotAFolder(_)
                        | UnpackError::LinkTarget(_)
                        | UnpackError::TooLarge(_)
                        | UnpackError::TooMany,
                )
        )
    }

    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            path: path.to_owned(),
            source,
        }
    }
}

/// A program's absolute path: a plain name is looked up on `PATH`.
fn find_program(program: &Path, advice: &'static str) -> Result<PathBuf, HypervisorError> {
    let is_executable = |path: &Path| {
        fs::metadata(path)
            .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    };
    let missing = |place| HypervisorError::Missing {
        program: program.to_owned(),
        place,
        advice,
    };
    if program.components().count() > 1 {
        let absolute = std::path::absolute(program).map_err(HypervisorError::io(program))?;
        return if is_executable(&absolute) {
            Ok(absolute)
        } else {
            Err(missing("an executable file"))
        };
    }
    std::env::var_os("PATH")
        .iter()
        .flat_map(std::env::split_paths)
        .map(|folder| folder.join(program))
        .find(|path| path.is_absolute() && is_executable(path))
        .ok_or_else(|| missing("on PATH"))
}

/// Makes the folder for sockets that stand for vsock ports.
fn make_vsock_folder(folder: &Path) -> Result<(), HypervisorError> {
    fs::create_dir(folder).map_err(HypervisorError::io(folder))
}

/// Makes a folder for what is too large for the state folder or must be
/// executable, which that may not allow. The link comes first: whoever cleans up
/// finds the folder by it.
fn make_scratch_folder(directory: &Path, name: &EnclaveName) -> Result<PathBuf, HypervisorError> {
    let folder = std::env::temp_dir().join(format!("enclave-{name}-{}", random_hex()?));
    let folder = std::path::absolute(&folder).map_err(HypervisorError::io(&folder))?;
    symlink(&folder, directory.join(TREE_LINK)).map_err(HypervisorError::io(&folder))?;
    DirBuilder::new()
        .mode(0o700)
        .create(&folder)
        .map_err(HypervisorError::io(&folder))?;
    Ok(folder)
}

/// Waits until an enclave has ended, with the first of its processes: none is of use
/// without the others. Says how that one ended, or the guard. Cancellation safe.
pub async fn ended(guard: &mut Guard) -> String {
    match guard.exited().await {
        Ok(exit) => exit.to_string(),
        Err(error) => error.to_string(),
    }
}

/// Waits until a helper listens on its socket.
async fn wait_until_listening(
    name: &'static str,
    socket: &Path,
    guard: &mut Guard,
) -> Result<(), HypervisorError> {
    let failed = |reason| HypervisorError::Helper { name, reason };
    let start = Instant::now();
    while !is_listening(socket) {
        if start.elapsed() > LISTEN_TIMEOUT {
            let seconds = LISTEN_TIMEOUT.as_secs();
            return Err(failed(format!("it did not listen within {seconds} s")));
        }
        tokio::select! {
            exit = ended(guard) => return Err(failed(exit)),
            () = sleep(LISTEN_POLL) => {}
        }
    }
    Ok(())
}

/// Whether a process listens on the Unix socket at `path`.
fn is_listening(path: &Path) -> bool {
    let table = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let path = format!(" {}", path.display());
    table
        .lines()
        // Num: RefCount Protocol Flags Type St Inode Path
        .filter_map(|line| line.strip_suffix(&path))
        .any(|fields| fields.split_ascii_whitespace().nth(3) == Some(LISTENING))
}

/// Eight random bytes in hexadecimal.
fn random_hex() -> Result<String, HypervisorError> {
    let path = Path::new("/dev/urandom");
    let mut bytes = [0; 8];
    File::open(path)
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(HypervisorError::io(path))?;
    Ok(hex::encode(bytes))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixDatagram, UnixListener};

    use super::*;

    #[test]
    fn a_bound_socket_is_told_from_a_listening_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        assert!(!is_listening(&path));
        let datagram = UnixDatagram::bind(&path).unwrap();
        assert!(!is_listening(&path));
        drop(datagram);
        fs::remove_file(&path).unwrap();
        let _listener = UnixListener::bind(&path).unwrap();
        assert!(is_listening(&path));
    }
}
