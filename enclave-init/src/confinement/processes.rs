//! The PID namespace that a workload is started in.
//!
//! The workload sees no process but its own, and none of its signals reaches the
//! init. PID 1 of its namespace is the workload's main process, as in any container:
//! when it ends, the kernel ends everything else there. An image may ask for a PID 1
//! that reaps instead (`init = true`), for programs that do not. That is this program
//! again, which does nothing but let the kernel reap the orphans, and has nothing that a
//! workload could take: it is executed anew, so it has neither memory nor descriptors of
//! the init.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{SigHandler, Signal, kill, signal};
use nix::sys::wait::wait;
use nix::unistd::{Pid, pause};

use crate::args::REAPER;
use crate::error::{Doing, InitError};
use crate::mounts::PROGRAM;
use crate::network::Namespace;

/// What a namespace is started with, opened before any workload runs.
#[derive(Debug)]
pub(crate) struct Processes {
    /// The init's own PID namespace.
    own: File,
    /// The init's program, where nobody can change it.
    program: File,
    /// Whether PID 1 of a namespace is to be a process that reaps.
    has_reaper: bool,
}

/// Never chosen by the kernel when memory runs out (proc(5)).
const NEVER_KILLED: &str = "-1000";

impl Processes {
    pub(crate) fn open(has_reaper: bool) -> Result<Self, InitError> {
        let open = |path: &str| File::open(path).doing(|| format!("opening {path}"));
        Ok(Self {
            own: open("/proc/self/ns/pid")?,
            program: open(PROGRAM)?,
            has_reaper,
        })
    }

    /// Runs `start`, whose children belong to a new namespace. Meanwhile this thread
    /// cannot make threads. Gives the namespace's PID 1 too, if that is not what was started:
    /// it goes on when that has ended.
    pub(crate) fn in_new_namespace<T>(
        &self,
        network: &Namespace,
        start: impl FnOnce() -> Result<T, InitError>,
    ) -> Result<(Option<Pid>, T), InitError> {
        unshare(CloneFlags::CLONE_NEWPID).doing(|| "making a PID namespace".to_owned())?;
        let started = self.start_reaper(network).and_then(|pid1| match start() {
            Ok(started) => Ok((pid1, started)),
            Err(error) => {
                if let Some(pid1) = pid1 {
                    // Nobody has waited for it, so the number is its own.
                    let _ = kill(pid1, Signal::SIGKILL);
                }
                Err(error)
            }
        });
        setns(self.own.as_fd(), CloneFlags::CLONE_NEWPID)
            .doing(|| "leaving the workload's PID namespace".to_owned())?;
        started
    }

    /// This program anew, without the init's memory, environment and descriptors.
    pub(super) fn own_program(&self, argument: &str) -> Command {
        let mut command = Command::new(format!("/proc/self/fd/{}", self.program.as_raw_fd()));
        command
            .arg0("enclave-init")
            .arg(argument)
            .env_clear()
            .current_dir("/");
        command
    }

    fn start_reaper(&self, network: &Namespace) -> Result<Option<Pid>, InitError> {
        if !self.has_reaper {
            return Ok(None);
        }
        let starting = || "starting PID 1 of the workload's namespace".to_owned();
        let mut reaper = self.own_program(REAPER);
        reaper
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // The workload sees the network of PID 1 in its `/proc`.
        let pid1 = network
            .within(|| reaper.spawn())
            .and_then(|spawned| spawned)
            .doing(starting)?;
        let spared = fs::write(format!("/proc/{}/oom_score_adj", pid1.id()), NEVER_KILLED);
        match spared {
            // Only `sim`, where the machine's memory is its host's affair.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            result => result.doing(starting)?,
        }
        Ok(Some(Pid::from_raw(pid1.id().cast_signed())))
    }
}

/// Is PID 1 of the workload's namespace, until it is killed.
pub(crate) fn reap() -> ! {
    // Root's programs of the workload cannot look into a process with more
    // capabilities than they have, and this one keeps all; this is for the rest.
    let _ = nix::sys::prctl::set_dumpable(false);
    let _ = nix::sys::prctl::set_name(c"reaper");
    // SAFETY: no handler is set that could touch anything. Children whose end is
    // ignored are reaped by the kernel (waitpid(2)).
    let _ = unsafe { signal(Signal::SIGCHLD, SigHandler::SigIgn) };
    // The workload is already running: orphans that ended before the signal was
    // ignored are still zombies. The call ends once there is no child.
    while wait() != Err(Errno::ECHILD) {}
    loop {
        pause();
    }
}
