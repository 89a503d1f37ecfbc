//! What the workload sees of the machine: a mount namespace of its own, without the
//! machine's devices and with `/proc` masked as container runtimes mask it.

use std::ffi::{CStr, CString};
use std::io;

use manifest::Confinement;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::statvfs::{FsFlags, statvfs};

use super::cgroup;
use crate::error::{Doing, InitError};

/// Files that show or change what is not the workload's: nothing is read there.
const MASKED_FILES: [&CStr; 11] = [
    c"/proc/interrupts",
    c"/proc/kcore",
    c"/proc/keys",
    c"/proc/kmsg",
    c"/proc/kpagecgroup",
    c"/proc/kpagecount",
    c"/proc/kpageflags",
    c"/proc/latency_stats",
    c"/proc/sched_debug",
    c"/proc/timer_list",
    c"/proc/timer_stats",
];
/// Folders of the same kind: they are empty.
const MASKED_FOLDERS: [&CStr; 5] = [
    c"/proc/acpi",
    c"/proc/asound",
    c"/proc/scsi",
    c"/sys/devices/virtual/powercap",
    c"/sys/firmware",
];
/// What can be read and not be written to.
const READ_ONLY: [&CStr; 5] = [
    c"/proc/bus",
    c"/proc/fs",
    c"/proc/irq",
    c"/proc/sys",
    c"/proc/sysrq-trigger",
];

/// One change of the mounts.
enum Change {
    Mount {
        source: Option<CString>,
        target: CString,
        kind: Option<&'static CStr>,
        flags: MsFlags,
        /// Not every kernel has the target.
        optional: bool,
    },
    /// Takes off what is on top.
    Detach(CString),
}

/// The changes that make the workload's view, prepared so that making them takes
/// nothing but system calls.
pub(crate) struct View {
    namespaces: CloneFlags,
    changes: Vec<Change>,
}

impl View {
    pub(crate) fn new(confinement: &Confinement, simulated: bool) -> Result<Self, InitError> {
        let mut namespaces = CloneFlags::CLONE_NEWNS;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        let mut changes = vec![change(None, c"/", None, private)];
        if !simulated {
            // The devices of programs are below those of the machine.
            changes.push(Change::Detach(c"/dev".to_owned()));
        }
        let plain = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        changes.push(change(Some(c"proc"), c"/proc", Some(c"proc"), plain));
        for file in MASKED_FILES {
            changes.push(optional(change(
                Some(c"/dev/null"),
                file,
                None,
                MsFlags::MS_BIND,
            )));
        }
        for folder in MASKED_FOLDERS {
            let empty = plain | MsFlags::MS_RDONLY;
            changes.push(optional(change(
                Some(c"tmpfs"),
                folder,
                Some(c"tmpfs"),
                empty,
            )));
        }
        for path in READ_ONLY {
            changes.push(optional(change(Some(path), path, None, MsFlags::MS_BIND)));
            let flags = remount(plain | MsFlags::MS_RDONLY);
            changes.push(optional(change(None, path, None, flags)));
        }
        if !simulated {
            namespaces |= CloneFlags::CLONE_NEWCGROUP;
            let groups = CString::new(cgroup::MOUNT).unwrap_or_default();
            changes.push(Change::Detach(groups.clone()));
            let kind = Some(c"cgroup2");
            changes.push(change(kind, &groups, kind, plain));
            let flags = remount(plain | MsFlags::MS_RDONLY);
            changes.push(change(None, &groups, None, flags));
        }
        if !simulated || confinement.read_only_root {
            // In a user namespace, what the host has set cannot be taken away.
            let mut flags = flags_of_root()?;
            if !simulated {
                flags |= MsFlags::MS_NODEV;
            }
            if confinement.read_only_root {
                flags |= MsFlags::MS_RDONLY;
            }
            changes.push(change(None, c"/", None, remount(flags)));
        }
        Ok(Self {
            namespaces,
            changes,
        })
    }

    /// Gives this process the view. Only system calls.
    pub(crate) fn enter(&self) -> io::Result<()> {
        unshare(self.namespaces)?;
        for change in &self.changes {
            match change {
                Change::Mount {
                    source,
                    target,
                    kind,
                    flags,
                    optional,
                } => {
                    let (source, target) = (source.as_deref(), target.as_c_str());
                    match mount(source, target, *kind, *flags, None::<&CStr>) {
                        Err(Errno::ENOENT) if *optional => {}
                        result => result?,
                    }
                }
                Change::Detach(target) => umount2(target.as_c_str(), MntFlags::MNT_DETACH)?,
            }
        }
        Ok(())
    }
}

fn change(
    source: Option<&CStr>,
    target: &CStr,
    kind: Option<&'static CStr>,
    flags: MsFlags,
) -> Change {
    Change::Mount {
        source: source.map(CStr::to_owned),
        target: target.to_owned(),
        kind,
        flags,
        optional: false,
    }
}

fn optional(mut change: Change) -> Change {
    if let Change::Mount { optional, .. } = &mut change {
        *optional = true;
    }
    change
}

/// Changes a mount's flags, and not those of its file system, which others use.
fn remount(flags: MsFlags) -> MsFlags {
    MsFlags::MS_REMOUNT | MsFlags::MS_BIND | flags
}

/// The flags that `/` is mounted with.
fn flags_of_root() -> Result<MsFlags, InitError> {
    let found = statvfs("/").doing(|| "looking at /".to_owned())?.flags();
    let same = [
        (FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
        (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
        (FsFlags::ST_NOATIME, MsFlags::MS_NOATIME),
        (FsFlags::ST_NODIRATIME, MsFlags::MS_NODIRATIME),
        (FsFlags::ST_RELATIME, MsFlags::MS_RELATIME),
    ];
    let set = same
        .into_iter()
        .filter(|(flag, _)| found.contains(*flag))
        .map(|(_, flag)| flag);
    Ok(set.collect())
}
