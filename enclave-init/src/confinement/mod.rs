//! What keeps the workload from everything that is not its own: namespaces, limits,
//! capabilities and a filter of system calls.
//!
//! All of it is prepared once, at boot, and taken on by the workload's first process
//! between fork and exec, where nothing but system calls may be made. It can only be
//! taken on as a whole: a step that fails is the end of the start.

mod capabilities;
mod cgroup;
mod meter;
mod processes;
mod seccomp;
mod sizes;
mod view;

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use manifest::{Confinement as Settings, Groups, MeasuredConfig, User};
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, open, openat, openat2};
use nix::libc;
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid, fchdir, setgroups, setresgid, setresuid, write};

use self::capabilities::Set;
pub(crate) use self::cgroup::{Cgroup, Events};
use self::meter::Bounds;
pub(crate) use self::meter::report;
use self::processes::Processes;
pub(crate) use self::processes::reap;
use self::seccomp::Filter;
pub(crate) use self::sizes::{Memory, Sizes};
use self::view::View;
use crate::error::{Doing, InitError};
use crate::limits;

/// Descriptors that a program starts with: input, output, errors.
const FIRST_CLOSED: libc::c_uint = 3;

/// What the workload's process takes on.
pub(crate) struct Confinement {
    processes: Processes,
    cgroup: Option<Cgroup>,
    bounds: Bounds,
    /// What is to be said of limits that are lower than the image's.
    lowered: Option<String>,
    view: View,
    working_directory: CString,
    user: User,
    /// Its primary group, and the others.
    groups: Vec<Gid>,
    /// Files of a user namespace and what is written there, under `sim`.
    mapping: Vec<(&'static CStr, String)>,
    /// The init's `/proc`, which those files are in.
    proc: OwnedFd,
    capabilities: Set,
    filter: Filter,
}

/// A step of taking it on, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Step {
    Session,
    Cgroup,
    View,
    Proc,
    Sys,
    Dev,
    Run,
    Tmp,
    Secrets,
    Root,
    WorkingDirectory,
    Descriptors,
    User,
    Capabilities,
    Filter,
}

impl Step {
    const ALL: [(Self, &'static str); 15] = [
        (Self::Session, "making its session"),
        (Self::Cgroup, "entering its control group"),
        (Self::View, "making its mounts"),
        (Self::Proc, "mounting its /proc"),
        (Self::Sys, "mounting its /sys"),
        (Self::Dev, "mounting its /dev"),
        (Self::Run, "mounting its /run"),
        (Self::Tmp, "mounting its /tmp"),
        (Self::Secrets, "mounting its /run/secrets"),
        (Self::Root, "entering its root"),
        (Self::WorkingDirectory, "entering its working directory"),
        (Self::Descriptors, "closing the init's descriptors"),
        (Self::User, "becoming its user"),
        (Self::Capabilities, "giving up capabilities"),
        (Self::Filter, "installing the filter of system calls"),
    ];

    /// What the step that has this number was doing.
    pub(crate) fn describe(number: u8) -> &'static str {
        Self::ALL
            .into_iter()
            .find(|(step, _)| *step as u8 == number)
            .map_or("an unknown step", |(_, text)| text)
    }
}

impl Confinement {
    /// Prepares it, once the init's root has been entered. A simulation has no control
    /// group: the hierarchy is its host's.
    pub(crate) fn prepare(
        config: &MeasuredConfig,
        sizes: &Sizes,
        simulated: bool,
    ) -> Result<Self, InitError> {
        let settings: &Settings = &config.confinement;
        let cgroup = if simulated {
            None
        } else {
            limits::lift_shared()?;
            Some(Cgroup::create(sizes)?)
        };
        let user = config.workload.user;
        let is_root = user.uid == 0;
        let text = |text: &str| {
            CString::new(text).map_err(|_| InitError::Workload(format!("{text:?} has a zero byte")))
        };
        let mut mapping = Vec::new();
        if simulated && (user.uid, user.gid) != (0, 0) {
            // Only one user of the host can be mapped, so a user of the image is
            // another name for it, in a user namespace of the workload's own.
            for (file, contents) in [
                (c"self/setgroups", "deny".to_owned()),
                (c"self/uid_map", format!("{} 0 1", user.uid)),
                (c"self/gid_map", format!("{} 0 1", user.gid)),
            ] {
                mapping.push((file, contents));
            }
        }
        Ok(Self {
            processes: Processes::open()?,
            view: View::new(settings, config.has_secret_files(), simulated)?,
            cgroup,
            bounds: Bounds::new(settings, sizes),
            lowered: meter::lowered(settings, sizes),
            working_directory: text(config.workload.working_directory.as_str())?,
            user,
            groups: groups(user, &config.workload.groups),
            mapping,
            proc: open(
                "/proc",
                OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
                Mode::empty(),
            )
            .doing(|| "opening /proc".to_owned())?,
            capabilities: Set::new(&settings.capabilities_of(is_root)),
            filter: Filter::new(settings),
        })
    }

    /// The workload's control group; none under `sim`.
    pub(crate) fn cgroup(&self) -> Option<&Cgroup> {
        self.cgroup.as_ref()
    }

    fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// A line about limits that the machine makes lower than the image does.
    pub(crate) fn lowered(&self) -> Option<&str> {
        self.lowered.as_deref()
    }

    /// Starts the workload's first process, in namespaces that are new each time.
    pub(crate) fn start<T>(
        &self,
        start: impl FnOnce() -> Result<T, InitError>,
    ) -> Result<T, InitError> {
        self.processes.in_new_namespace(start)
    }

    /// Confines this process. It is the workload's between fork and exec, so only
    /// system calls are made, on memory that was prepared before.
    pub(crate) fn take_on(&self, mut at: impl FnMut(Step)) -> io::Result<()> {
        at(Step::Session);
        nix::unistd::setsid()?;
        at(Step::Cgroup);
        if let Some(cgroup) = &self.cgroup {
            write(cgroup.procs(), b"0")?;
        }
        at(Step::View);
        self.view.enter(&mut at)?;
        at(Step::WorkingDirectory);
        self.enter_working_directory()?;
        at(Step::Descriptors);
        close_others()?;
        at(Step::User);
        let is_simulated = self.cgroup.is_none();
        if !self.mapping.is_empty() {
            self.map_user()?;
        }
        self.capabilities.bound()?;
        if !is_simulated {
            give_output(self.user)?;
            prctl::set_keepcaps(true)?;
            let (uid, gid) = (Uid::from_raw(self.user.uid), Gid::from_raw(self.user.gid));
            setgroups(&self.groups)?;
            setresgid(gid, gid, gid)?;
            setresuid(uid, uid, uid)?;
        }
        at(Step::Capabilities);
        self.capabilities.keep()?;
        prctl::set_no_new_privs()?;
        at(Step::Filter);
        self.filter.install()
    }

    /// A workload that is started again may have put a link of procfs in the folder's place,
    /// by which this process, still with all capabilities, would leave the workload's root:
    /// `/proc/1/root` is the init's.
    fn enter_working_directory(&self) -> io::Result<()> {
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_NO_MAGICLINKS);
        let folder = openat2(AT_FDCWD, self.working_directory.as_c_str(), how)?;
        fchdir(folder)?;
        Ok(())
    }

    fn map_user(&self) -> io::Result<()> {
        unshare(CloneFlags::CLONE_NEWUSER)?;
        for (file, contents) in &self.mapping {
            let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
            let file = openat(&self.proc, *file, flags, Mode::empty())?;
            write(file.as_fd(), contents.as_bytes())?;
        }
        Ok(())
    }
}

/// The primary group is among the supplementary ones, as with Docker and containerd: a
/// program that changes its primary group must not lose what that group is denied
/// (CVE-2022-36109).
fn groups(user: User, others: &Groups) -> Vec<Gid> {
    let own = std::iter::once(user.gid);
    let others = others.iter().copied().filter(|gid| *gid != user.gid);
    own.chain(others).map(Gid::from_raw).collect()
}

/// Gives the pipes of standard output and standard error to the user, as Docker does: a
/// program that opens `/dev/stdout`, as nginx does for its log, opens a file of its user's.
fn give_output(user: User) -> io::Result<()> {
    for output in [libc::STDOUT_FILENO, libc::STDERR_FILENO] {
        // SAFETY: the call takes numbers and touches no memory.
        let given = unsafe { libc::fchown(output, user.uid, user.gid) };
        nix::errno::Errno::result(given)?;
    }
    Ok(())
}

/// Has the kernel close every descriptor but the first three when the program is
/// executed, whatever opened it: a vsock connection must not be inherited.
fn close_others() -> io::Result<()> {
    // SAFETY: the call takes numbers, and closes nothing before the program is
    // executed.
    let closed = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            FIRST_CLOSED,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    match nix::errno::Errno::result(closed) {
        // Linux before 5.11, which only `sim` can meet: the init opens everything so.
        Err(nix::errno::Errno::ENOSYS | nix::errno::Errno::EINVAL) => Ok(()),
        result => Ok(result.map(drop)?),
    }
}
