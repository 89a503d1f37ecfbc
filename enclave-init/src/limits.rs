//! What a process inherits: the signals that it blocks, its file mode mask, its
//! number of descriptors, and that it leaves no core file. And what the kernel counts
//! for a user, who may be the workload's as well as the init's.

use std::fs;
use std::path::Path;

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use nix::sys::signal::SigSet;
use nix::sys::stat::{Mode, umask};

use crate::error::{Doing, InitError};

/// Descriptors for each process: enough for every connection that the init
/// carries, two each, and what container runtimes give a workload at least.
const DESCRIPTORS: u64 = 65_536;

/// What the kernel counts for each user, of what the init needs too: a workload that
/// runs as root would take it from the init. All of it takes memory, which the
/// workload's control group counts. Others that the init needs (pipes, descriptors in
/// flight, open files) do not bind a process with the init's capabilities.
const SHARED_COUNTERS: [&str; 5] = [
    "fs/epoll/max_user_watches",
    "user/max_cgroup_namespaces",
    "user/max_ipc_namespaces",
    "user/max_mnt_namespaces",
    "user/max_pid_namespaces",
];
/// The highest value of each of them (`INT_MAX`).
const UNLIMITED: &str = "2147483647";

/// Takes the limits off the counters that the init shares with a workload of the same
/// user. Only on a machine of its own. `/proc` must be mounted.
pub(crate) fn lift_shared() -> Result<(), InitError> {
    for counter in SHARED_COUNTERS {
        let file = Path::new("/proc/sys").join(counter);
        fs::write(&file, UNLIMITED)
            .doing(|| format!("writing {UNLIMITED} to {}", file.display()))?;
    }
    Ok(())
}

/// Sets them for this process and, through it, for the workload. As root the
/// number may be raised above the kernel's 4096; elsewhere it goes as far as the
/// caller's own limit.
pub(crate) fn set() {
    // The launcher blocks some, and so may whoever started it.
    let _ = SigSet::empty().thread_set_mask();
    umask(Mode::S_IWGRP | Mode::S_IWOTH);
    // A core file holds whatever the memory held. Lowering a limit needs nothing.
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    // The kernel derives one for each user from the memory, and does not apply it to
    // root. The workload's control group has the limit that the image names, and
    // counts what it refuses. Only root may raise this one.
    let _ = setrlimit(Resource::RLIMIT_NPROC, RLIM_INFINITY, RLIM_INFINITY);
    let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return;
    };
    let raised = setrlimit(Resource::RLIMIT_NOFILE, DESCRIPTORS, hard.max(DESCRIPTORS));
    if raised.is_err() {
        // Fewer connections then: whoever runs out waits and tries again.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard.min(DESCRIPTORS), hard);
    }
}
