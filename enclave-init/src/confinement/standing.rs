//! The identity and privileges of a workload process: its working directory, user and groups, its
//! capabilities and the filter of its system calls. The workload has it, and so has every
//! command that is run beside it.

use std::ffi::CString;
use std::io;

use manifest::{Confinement as Settings, Groups, User};
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::libc;
use nix::sys::prctl;
use nix::unistd::{Gid, Uid, fchdir, setgroups, setresgid, setresuid};

use super::capabilities::Set;
use super::seccomp::Filter;
use crate::error::InitError;

/// Descriptors that a program starts with: input, output, errors.
const FIRST_CLOSED: libc::c_uint = 3;

pub(super) struct Standing {
    working_directory: CString,
    user: User,
    /// Its primary group, and the others.
    groups: Vec<Gid>,
    capabilities: Set,
    filter: Filter,
    /// Whether there is no other user to become, under `sim`.
    has_one_user: bool,
}

impl Standing {
    pub(super) fn new(
        settings: &Settings,
        working_directory: &str,
        user: User,
        others: &Groups,
        has_one_user: bool,
    ) -> Result<Self, InitError> {
        Ok(Self {
            working_directory: CString::new(working_directory).map_err(|_| {
                InitError::Workload(format!("{working_directory:?} has a zero byte"))
            })?,
            user,
            groups: groups(user, others),
            capabilities: Set::new(&settings.capabilities_of(user.uid == 0)),
            filter: Filter::new(settings),
            has_one_user,
        })
    }

    /// A workload that is started again may have put a link of procfs in the folder's place,
    /// by which this process, still with all capabilities, would leave the workload's root:
    /// `/proc/1/root` may be the init's. Only system calls, as all that follows.
    pub(super) fn enter_working_directory(&self) -> io::Result<()> {
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_NO_MAGICLINKS);
        let folder = openat2(AT_FDCWD, self.working_directory.as_c_str(), how)?;
        fchdir(folder)?;
        Ok(())
    }

    pub(super) fn become_user(&self) -> io::Result<()> {
        self.capabilities.bound()?;
        if !self.has_one_user {
            give_output(self.user)?;
            prctl::set_keepcaps(true)?;
            let (uid, gid) = (Uid::from_raw(self.user.uid), Gid::from_raw(self.user.gid));
            setgroups(&self.groups)?;
            setresgid(gid, gid, gid)?;
            setresuid(uid, uid, uid)?;
        }
        Ok(())
    }

    pub(super) fn give_up_capabilities(&self) -> io::Result<()> {
        self.capabilities.keep()?;
        prctl::set_no_new_privs()?;
        Ok(())
    }

    pub(super) fn install_filter(&self) -> io::Result<()> {
        self.filter.install()
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
pub(super) fn close_others() -> io::Result<()> {
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
