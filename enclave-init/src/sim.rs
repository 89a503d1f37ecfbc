//! The namespaces of a simulated enclave, made without privileges: all but the user
//! namespace, if whoever starts it has made one for the image's users.

use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, IntoRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use link::Endpoint;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, getegid, geteuid};

use crate::args::Simulation;
use crate::exit::EXIT_FAILED;
use crate::network::check_pairs;

/// What stands for vsock and the NSM, as descriptors: their paths are out of
/// reach once the root has changed. They stay open until the process ends,
/// because endpoints name them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Descriptors {
    sockets: RawFd,
    nsm: RawFd,
}

impl Descriptors {
    pub(crate) fn open(simulation: &Simulation) -> io::Result<Self> {
        let path_only = |path: &PathBuf| {
            open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
                .map(OwnedFd::into_raw_fd)
                .map_err(|error| io::Error::other(format!("{}: {error}", path.display())))
        };
        Ok(Self {
            sockets: path_only(&simulation.sockets)?,
            nsm: path_only(&simulation.nsm)?,
        })
    }

    /// Where a port of the parent is.
    pub(crate) fn parent(self, port: u32) -> Endpoint {
        Endpoint::Unix {
            path: format!("/proc/self/fd/{}/host_{port}", self.sockets).into(),
        }
    }

    /// Where a port of the enclave is.
    pub(crate) fn own(self, port: u32) -> Endpoint {
        Endpoint::Unix {
            path: format!("/proc/self/fd/{}/enclave_{port}", self.sockets).into(),
        }
    }

    /// The software NSM's socket.
    pub(crate) fn nsm(self) -> PathBuf {
        format!("/proc/self/fd/{}", self.nsm).into()
    }
}

/// Why there is no simulated enclave.
pub(crate) enum LaunchError {
    /// The machine does not let this user make namespaces.
    Namespaces(String),
    /// PID 1 could not be started or waited for.
    Process(io::Error),
}

/// What lets a user make namespaces, and what is in them.
const ALLOW: &str = "allow user namespaces (sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, user.max_user_namespaces above 0), or run as root outside a container";

/// Signals that are PID 1's: whoever stops a program stops its launcher.
const FORWARDED: [Signal; 5] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];

/// Makes the namespaces, runs PID 1 in them and gives its exit code. Kills it
/// when standard input ends: then whoever started this is gone.
pub(crate) fn launch(simulation: &Simulation) -> Result<i32, LaunchError> {
    // By its path, not by `/proc/self/exe`: only what is found in the namespaces' own mounts
    // can be mounted again there.
    let program = std::env::current_exe().map_err(LaunchError::Process)?;
    make_namespaces(simulation)?;
    check_pairs().map_err(|error| {
        // What a kernel says that knows no such kind.
        let is_unknown = error.raw_os_error() == Some(libc::EOPNOTSUPP);
        let hint = if is_unknown {
            "load its module (modprobe veth), or use a kernel with CONFIG_VETH"
        } else {
            ALLOW
        };
        LaunchError::Namespaces(format!(
            "no pair of network interfaces can be made for the workload: {error}; {hint}"
        ))
    })?;
    // No threads: the kernel makes none for a process whose children belong to
    // another PID namespace.
    let mut watched: SigSet = FORWARDED.into_iter().collect();
    watched.add(Signal::SIGCHLD);
    let process = |error: Errno| LaunchError::Process(error.into());
    watched.thread_block().map_err(process)?;
    let signals = SignalFd::with_flags(&watched, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .map_err(process)?;
    let mut pid1 = Command::new(program)
        .args(simulation.pid1_arguments())
        .env_clear()
        .stdin(Stdio::piped())
        .spawn()
        .map_err(LaunchError::Process)?;
    // The end that `tie_to_launcher` looks at; `wait` would close it.
    let _tie = pid1.stdin.take();
    let pid = Pid::from_raw(pid1.id().cast_signed());
    let mut input = Some(io::stdin());
    loop {
        if let Some(status) = pid1.try_wait().map_err(LaunchError::Process)? {
            return Ok(status.code().unwrap_or(EXIT_FAILED.into()));
        }
        let (signalled, readable) = wait(&signals, input.as_ref()).map_err(process)?;
        while signalled && let Ok(Some(signal)) = signals.read_signal() {
            match i32::try_from(signal.ssi_signo).map(Signal::try_from) {
                Ok(Ok(signal)) if signal != Signal::SIGCHLD => {
                    // PID 1 is not waited for yet, so the pid is its own.
                    let _ = kill(pid, signal);
                }
                _ => {}
            }
        }
        if readable && input.as_mut().is_some_and(has_ended) {
            input = None;
            // The whole PID namespace ends with its PID 1.
            let _ = kill(pid, Signal::SIGKILL);
        }
    }
}

/// Has the kernel kill this PID 1 with its launcher.
pub(crate) fn tie_to_launcher() -> io::Result<()> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    // It may have ended before. The parent's pid would not tell: in this
    // namespace it has none. But it holds the other end of standard input.
    let input = io::stdin();
    let mut polled = [PollFd::new(input.as_fd(), PollFlags::empty())];
    poll(&mut polled, PollTimeout::ZERO)?;
    if is_ready(polled.first()) {
        return Err(io::Error::other("it has ended"));
    }
    Ok(())
}

fn make_namespaces(simulation: &Simulation) -> Result<(), LaunchError> {
    let denied =
        |what: &str, error: io::Error| LaunchError::Namespaces(format!("{what}: {error}; {ALLOW}"));
    let (uid, gid) = (geteuid(), getegid());
    let has_users = simulation.users.is_some();
    let mut namespaces = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC;
    namespaces.set(CloneFlags::CLONE_NEWUSER, !has_users);
    unshare(namespaces)
        .map_err(|error| denied("this user may not make namespaces", error.into()))?;
    if has_users {
        return Ok(());
    }
    for (file, contents) in [
        ("/proc/self/setgroups", "deny".to_owned()),
        ("/proc/self/uid_map", format!("0 {uid} 1")),
        ("/proc/self/gid_map", format!("0 {gid} 1")),
    ] {
        fs::write(file, contents).map_err(|error| denied(file, error))?;
    }
    Ok(())
}

/// Waits until there is a signal or input; says which.
fn wait(signals: &SignalFd, input: Option<&io::Stdin>) -> Result<(bool, bool), Errno> {
    let mut polled = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
    polled.extend(input.map(|input| PollFd::new(input.as_fd(), PollFlags::POLLIN)));
    match poll(&mut polled, PollTimeout::NONE) {
        Ok(_) => Ok((is_ready(polled.first()), is_ready(polled.get(1)))),
        Err(Errno::EINTR) => Ok((false, false)),
        Err(error) => Err(error),
    }
}

fn is_ready(polled: Option<&PollFd<'_>>) -> bool {
    polled
        .and_then(PollFd::revents)
        .is_some_and(|events| !events.is_empty())
}

fn has_ended(input: &mut io::Stdin) -> bool {
    match input.read(&mut [0; 512]) {
        Ok(count) => count == 0,
        Err(error) => !matches!(
            error.kind(),
            io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock
        ),
    }
}
