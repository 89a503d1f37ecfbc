//! The namespaces of a simulated enclave, made without privileges.

use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use link::Endpoint;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::stat::Mode;
use nix::unistd::{getegid, geteuid};

use crate::args::Simulation;
use crate::run::EXIT_FAILED;

/// What stands for vsock and the NSM, as descriptors: their paths are out of
/// reach once the root has changed.
#[derive(Debug)]
pub(crate) struct Descriptors {
    sockets: OwnedFd,
    nsm: OwnedFd,
}

impl Descriptors {
    pub(crate) fn open(simulation: &Simulation) -> io::Result<Self> {
        let path_only = |path: &PathBuf| {
            open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
                .map_err(|error| io::Error::other(format!("{}: {error}", path.display())))
        };
        Ok(Self {
            sockets: path_only(&simulation.sockets)?,
            nsm: path_only(&simulation.nsm)?,
        })
    }

    /// Where a port of the parent is.
    pub(crate) fn parent(&self, port: u32) -> Endpoint {
        Endpoint::Unix {
            path: format!("/proc/self/fd/{}/host_{port}", self.sockets.as_raw_fd()).into(),
        }
    }

    /// Where a port of the enclave is.
    pub(crate) fn own(&self, port: u32) -> Endpoint {
        Endpoint::Unix {
            path: format!("/proc/self/fd/{}/enclave_{port}", self.sockets.as_raw_fd()).into(),
        }
    }

    /// The software NSM's socket.
    pub(crate) fn nsm(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.nsm.as_raw_fd()).into()
    }
}

/// Why there is no simulated enclave.
pub(crate) enum LaunchError {
    /// The machine does not let this user make namespaces.
    Namespaces(String),
    /// PID 1 could not be started or waited for.
    Process(io::Error),
}

/// Makes the namespaces, runs PID 1 in them and gives its exit code. Ends it
/// when standard input does: then whoever started this is gone.
pub(crate) fn launch(simulation: &Simulation) -> Result<i32, LaunchError> {
    let denied = |what: &str, error: io::Error| {
        LaunchError::Namespaces(format!(
            "{what}: {error}; allow user namespaces (sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, user.max_user_namespaces above 0), or run as root outside a container"
        ))
    };
    let (uid, gid) = (geteuid(), getegid());
    unshare(
        CloneFlags::CLONE_NEWUSER
            | CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWPID
            | CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWIPC,
    )
    .map_err(|error| denied("this user may not make namespaces", error.into()))?;
    for (file, contents) in [
        ("/proc/self/setgroups", "deny".to_owned()),
        ("/proc/self/uid_map", format!("0 {uid} 1")),
        ("/proc/self/gid_map", format!("0 {gid} 1")),
    ] {
        fs::write(file, contents).map_err(|error| denied(file, error))?;
    }
    // A descriptor, because a thread that waits cannot be made: a process that has
    // left its PID namespace gets no more threads (clone(2), EINVAL). The mask
    // does not reach PID 1: `Command` starts it with an empty one.
    let children = SigSet::from(Signal::SIGCHLD);
    let children = children
        .thread_block()
        .and_then(|()| {
            SignalFd::with_flags(&children, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        })
        .map_err(|error| LaunchError::Process(error.into()))?;
    let mut pid1 = Command::new("/proc/self/exe")
        .args(simulation.pid1_arguments())
        .env_clear()
        .stdin(Stdio::null())
        .spawn()
        .map_err(LaunchError::Process)?;
    wait(&mut pid1, &children).map_err(LaunchError::Process)
}

/// Waits for PID 1 and gives its exit code; kills it once standard input ends.
fn wait(pid1: &mut Child, children: &SignalFd) -> io::Result<i32> {
    let stdin = io::stdin();
    let mut watched = vec![
        PollFd::new(children.as_fd(), PollFlags::POLLIN),
        PollFd::new(stdin.as_fd(), PollFlags::POLLIN),
    ];
    loop {
        if let Some(status) = pid1.try_wait()? {
            return Ok(status.code().unwrap_or(EXIT_FAILED.into()));
        }
        match poll(&mut watched, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        while let Ok(Some(_)) = children.read_signal() {}
        let readable = watched
            .get(1)
            .is_some_and(|stdin| stdin.any().unwrap_or(true));
        if readable && matches!(stdin.lock().read(&mut [0; 64]), Ok(0) | Err(_)) {
            watched.truncate(1);
            // The whole PID namespace ends with its PID 1.
            pid1.kill()?;
        }
    }
}
