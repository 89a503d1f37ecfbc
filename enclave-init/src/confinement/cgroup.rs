//! The workloads' control groups (cgroup v2): their limits, and how often they met them.
//!
//! Whoever has the root of a cgroup namespace may delegate it: with a user namespace
//! of its own a workload can take what it sees as its root for another's group, and
//! write that group's limits. So the limits that hold are one group above:
//!
//! | group | what |
//! |---|---|
//! | the root | the init, which no limit reaches |
//! | `/workload` | the limits; no process, and no part of the workload's view |
//! | `/workload/inner` | the workload, and the root of its namespace; the limits once more, for programs that read them |
//! | `/workload/probe`, `/workload/change` | commands that run beside the workload, each so that all of it can be killed |
//!
//! Of several workloads each has such groups below `/workload/NAME`, where its own limits
//! are, and those of `/workload` are for all of them together.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use link::control::FromInit;
use manifest::WorkloadName;
use nix::mount::MsFlags;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::sizes::Sizes;
use crate::error::{Doing, InitError};
use crate::mounts::mount_at;

/// Where the groups are, in the init's root.
const MOUNT: &str = "/sys/fs/cgroup";
const GROUP: &str = "/sys/fs/cgroup/workload";
/// Counts of the whole machine (proc(5)).
const MACHINE: &str = "/proc/vmstat";
/// The controllers that the limits need.
const CONTROLLERS: &str = "+cpu +memory +pids";
/// The workloads' share of a busy processor, where each task of the init has 100:
/// log lines and answers do not wait behind it.
const CPU_WEIGHT: u64 = 20;
/// The largest of all (Linux, `admin-guide/cgroup-v2.rst`).
const MAX_CPU_WEIGHT: u64 = 10_000;
/// Longest event file, in bytes: a handful of short lines.
const MAX_EVENTS: usize = 1024;

/// A workload's group.
#[derive(Debug)]
pub(crate) struct Cgroup {
    folder: PathBuf,
    /// Writing `0` moves the writer into the group.
    procs: File,
    counts: Counts,
    /// Its share of the processor, if there are others.
    cpu_weight: Option<u64>,
}

/// A group that has the largest share of the processor until this is dropped.
pub(super) struct Hastened<'a>(&'a Cgroup);

impl Drop for Hastened<'_> {
    fn drop(&mut self) {
        self.0.weigh(self.0.cpu_weight);
    }
}

/// What a group counts.
#[derive(Debug)]
pub(crate) struct Counts {
    folder: PathBuf,
    /// The groups that have the limits: this one, and that of a workload once more.
    limited: Vec<PathBuf>,
    /// Whether what the machine counts is this group's, too.
    are_the_machines: bool,
    memory: AsyncFd<File>,
    pids: AsyncFd<File>,
}

/// What bounds a group.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bound {
    /// Bytes.
    pub(super) memory: u64,
    pub(super) pids: u64,
    pub(super) cpu_weight: u64,
}

/// What runs beside the workload, one command of each at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// A probe of its health.
    Probe,
    /// What follows the change of a secret.
    Change,
}

impl Side {
    fn name(self) -> &'static str {
        match self {
            Self::Probe => "probe",
            Self::Change => "change",
        }
    }
}

/// How often the workload met its limits since the boot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Events {
    /// Processes that the kernel killed for want of memory.
    pub(crate) oom_kills: u64,
    /// Processes and threads that it did not start.
    pub(crate) pids_refused: u64,
}

/// How often a group's own limits were met, and not those of a group above or below it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Met {
    pub(super) memory: u64,
    pub(super) pids: u64,
}

impl From<Events> for FromInit {
    fn from(events: Events) -> Self {
        Self::Limits {
            oom_kills: events.oom_kills,
            pids_refused: events.pids_refused,
        }
    }
}

/// Mounts the hierarchy, and makes the group that bounds all workloads.
pub(super) fn mount(sizes: &Sizes) -> Result<(), InitError> {
    let plain = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    // Who sees a part of the hierarchy cannot change the limits of that part.
    mount_at("cgroup2", Path::new(MOUNT), "cgroup2", plain, "nsdelegate")?;
    write(Path::new(MOUNT), "cgroup.subtree_control", CONTROLLERS)?;
    make(Path::new(GROUP), &of_all(sizes))
}

/// What bounds all workloads together.
fn of_all(sizes: &Sizes) -> Bound {
    Bound {
        memory: sizes.memory,
        pids: sizes.pids,
        cpu_weight: CPU_WEIGHT,
    }
}

/// Makes a group whose limits reach those below it.
fn make(folder: &Path, bound: &Bound) -> Result<(), InitError> {
    fs::create_dir_all(folder).doing(|| format!("making {}", folder.display()))?;
    write(folder, "cgroup.subtree_control", CONTROLLERS)?;
    write(folder, "memory.max", &bound.memory.to_string())?;
    write(folder, "pids.max", &bound.pids.to_string())?;
    write(folder, "cpu.weight", &bound.cpu_weight.to_string())
}

fn write(folder: &Path, file: &str, value: &str) -> Result<(), InitError> {
    let path = folder.join(file);
    fs::write(&path, value).doing(|| format!("writing {value} to {}", path.display()))
}

impl Cgroup {
    /// The group of the only workload. Needs the runtime.
    pub(super) fn of_one(sizes: &Sizes) -> Result<Self, InitError> {
        Self::create(PathBuf::from(GROUP), &of_all(sizes), true)
    }

    /// The group of one of several workloads. Needs the runtime.
    pub(super) fn of_several(name: &WorkloadName, bound: &Bound) -> Result<Self, InitError> {
        let folder = Path::new(GROUP).join(&**name);
        make(&folder, bound)?;
        Self::create(folder, bound, false)
    }

    fn create(folder: PathBuf, bound: &Bound, is_only: bool) -> Result<Self, InitError> {
        let &Bound {
            memory,
            pids,
            cpu_weight,
        } = bound;
        let cpu_weight = (!is_only).then_some(cpu_weight);
        let inner = folder.join("inner");
        fs::create_dir_all(&inner).doing(|| format!("making {}", inner.display()))?;
        write(&inner, "memory.max", &memory.to_string())?;
        write(&inner, "pids.max", &pids.to_string())?;
        let procs = inner.join("cgroup.procs");
        Ok(Self {
            procs: File::options()
                .write(true)
                .open(&procs)
                .doing(|| format!("opening {}", procs.display()))?,
            counts: Counts::of(folder.clone(), Some(inner), is_only)?,
            cpu_weight,
            folder,
        })
    }

    /// For the start of a program, which the init waits for: in a group of little weight it
    /// could have to wait for as long as the others are busy.
    pub(super) fn hasten(&self) -> Hastened<'_> {
        self.weigh(self.cpu_weight.map(|_| MAX_CPU_WEIGHT));
        Hastened(self)
    }

    fn weigh(&self, weight: Option<u64>) {
        if let Some(weight) = weight {
            // The kernel takes it, as it has before.
            let _ = fs::write(self.folder.join("cpu.weight"), weight.to_string());
        }
    }

    /// What it counts.
    pub(super) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// How often limits were met so far.
    pub(crate) fn events(&self) -> io::Result<Events> {
        self.counts.events()
    }

    /// What a command beside the workload writes to, to enter its group.
    pub(super) fn side(&self, side: Side) -> Result<File, InitError> {
        let group = self.folder.join(side.name());
        fs::create_dir_all(&group).doing(|| format!("making {}", group.display()))?;
        let procs = group.join("cgroup.procs");
        File::options()
            .write(true)
            .open(&procs)
            .doing(|| format!("opening {}", procs.display()))
    }

    /// Kills all that is in such a group.
    pub(crate) fn kill(&self, side: Side) -> io::Result<()> {
        let group = self.folder.join(side.name());
        fs::write(group.join("cgroup.kill"), "1")
    }

    /// What a process writes to, to enter the group.
    pub(super) fn procs(&self) -> BorrowedFd<'_> {
        self.procs.as_fd()
    }
}

impl Counts {
    /// Those of all workloads together.
    pub(super) fn of_all() -> Result<Self, InitError> {
        Self::of(PathBuf::from(GROUP), None, true)
    }

    fn of(
        folder: PathBuf,
        inner: Option<PathBuf>,
        are_the_machines: bool,
    ) -> Result<Self, InitError> {
        let open = |name: &str| {
            let path = folder.join(name);
            let file = File::open(&path).doing(|| format!("opening {}", path.display()))?;
            // SAFETY: a `File` has one descriptor, which stays open until it is dropped.
            unsafe { AsyncFd::register_with_interest(file, Interest::PRIORITY) }
                .doing(|| format!("watching {}", path.display()))
        };
        Ok(Self {
            memory: open("memory.events")?,
            pids: open("pids.events")?,
            limited: std::iter::once(folder.clone()).chain(inner).collect(),
            folder,
            are_the_machines,
        })
    }

    /// How often limits were met so far.
    pub(super) fn events(&self) -> io::Result<Events> {
        let group = count(&self.folder.join("memory.events"), "oom_kill")?;
        // Where the machine's memory runs out before the group's, the kernel may count
        // in no group. The init, and a PID 1 that reaps for a workload, are never killed
        // for it, so all that the machine counts are processes of workloads.
        let machine = if self.are_the_machines {
            let machine = fs::read_to_string(MACHINE)?;
            find(&machine, "oom_kill").unwrap_or_default()
        } else {
            0
        };
        Ok(Events {
            oom_kills: machine.max(group),
            pids_refused: count(&self.folder.join("pids.events"), "max")?,
        })
    }

    /// How often the group's own limits were met.
    pub(super) fn met(&self) -> io::Result<Met> {
        let mut met = Met::default();
        for group in &self.limited {
            met.memory += count(&group.join("memory.events.local"), "oom")?;
            met.pids += count(&group.join("pids.events.local"), "max")?;
        }
        Ok(met)
    }

    /// Waits until [`Self::events`] may give other counts than at the end of the
    /// wait before. Cancellation safe.
    pub(super) async fn changed(&self) -> io::Result<()> {
        let (mut ready, file) = tokio::select! {
            ready = self.memory.ready(Interest::PRIORITY) => (ready?, &self.memory),
            ready = self.pids.ready(Interest::PRIORITY) => (ready?, &self.pids),
        };
        ready.clear_ready();
        // The kernel tells of changes since the descriptor was last read from.
        file.get_ref().read_at(&mut [0; MAX_EVENTS], 0)?;
        Ok(())
    }
}

/// One count of an event file. Not from a descriptor that is waited for: a change
/// would pass for seen.
fn count(file: &Path, name: &str) -> io::Result<u64> {
    let text = fs::read_to_string(file)?;
    find(&text, name)
        .ok_or_else(|| io::Error::other(format!("{} does not count {name}", file.display())))
}

/// The value of a flat keyed file (Linux, `admin-guide/cgroup-v2.rst`).
fn find(text: &str, name: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroup_events_are_found_by_their_whole_name() {
        let text = "low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 7\n";
        assert_eq!(find(text, "oom_kill"), Some(2));
        assert_eq!(find(text, "max"), Some(12));
        assert_eq!(find(text, "oom_k"), None);
        assert_eq!(find("max none\n", "max"), None);
    }
}
