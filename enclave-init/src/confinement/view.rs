//! What the workload sees of the machine: a mount namespace of its own, without the
//! machine's devices and with `/proc` masked as container runtimes mask it.
//!
//! Each run's process makes it anew. What is mounted is put together in the init's
//! root, where no workload has ever been, and then moved as a whole into the
//! application's, whose folders may be whatever the run before has left: they are
//! entered by descriptors that follow no link. At last the init's root is taken off.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use manifest::Confinement;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, open, openat};
use nix::libc::dev_t;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::FchmodatFlags::FollowSymlink;
use nix::sys::stat::{Mode, SFlag, fchmodat, makedev, mkdirat, mknod};
use nix::unistd::{chdir, fchdir, mkdir, pivot_root, symlinkat};

use super::Step;
use crate::error::InitError;
use crate::mounts::{APPLICATION, DEVICES, RUN, SECRETS, SHM, TMP, flags_of};

/// Links that programs expect in `/dev`.
const LINKS: [(&CStr, &CStr); 5] = [
    (c"/proc/self/fd", c"/view/dev/fd"),
    (c"/proc/self/fd/0", c"/view/dev/stdin"),
    (c"/proc/self/fd/1", c"/view/dev/stdout"),
    (c"/proc/self/fd/2", c"/view/dev/stderr"),
    (c"pts/ptmx", c"/view/dev/ptmx"),
];
/// How `/dev` and the terminals in it are mounted.
const DEV_OPTIONS: &CStr = c"mode=0755,size=64k";
/// At most so many terminals at a time: more than interactive programs use. The
/// kernel's own number is for all instances together.
const TERMINAL_OPTIONS: &CStr = c"newinstance,ptmxmode=0666,mode=0620,max=256";
/// Files that show or change what is not the workload's: nothing is read there.
const MASKED_FILES: [&CStr; 11] = [
    c"/view/proc/interrupts",
    c"/view/proc/kcore",
    c"/view/proc/keys",
    c"/view/proc/kmsg",
    c"/view/proc/kpagecgroup",
    c"/view/proc/kpagecount",
    c"/view/proc/kpageflags",
    c"/view/proc/latency_stats",
    c"/view/proc/sched_debug",
    c"/view/proc/timer_list",
    c"/view/proc/timer_stats",
];
/// Folders of the same kind: they are empty.
const MASKED_FOLDERS: [&CStr; 5] = [
    c"/view/proc/acpi",
    c"/view/proc/asound",
    c"/view/proc/scsi",
    c"/view/sys/devices/virtual/powercap",
    c"/view/sys/firmware",
];
/// What can be read and not be written to.
const READ_ONLY: [&CStr; 5] = [
    c"/view/proc/bus",
    c"/view/proc/fs",
    c"/view/proc/irq",
    c"/view/proc/sys",
    c"/view/proc/sysrq-trigger",
];
const GROUPS: &CStr = c"/view/sys/fs/cgroup";
const OWN_VIEW: &CStr = c"/view/enclave";
const SECRETS_VIEW: &CStr = c"/view/secrets";

/// Where the parts go, by their folders in the application's root.
const PARTS: [(Step, &CStr, &CStr, MsFlags); 5] = [
    (Step::Proc, c"/view/proc", c"proc", MsFlags::MS_MOVE),
    (Step::Sys, c"/view/sys", c"sys", MsFlags::MS_MOVE),
    (Step::Dev, c"/view/dev", c"dev", MsFlags::MS_MOVE),
    (Step::Run, RUN, c"run", MsFlags::MS_BIND),
    (Step::Tmp, TMP, c"tmp", MsFlags::MS_BIND),
];

/// One step of putting the parts together.
enum Change {
    Mount {
        source: Option<CString>,
        target: CString,
        kind: Option<&'static CStr>,
        flags: MsFlags,
        options: Option<&'static CStr>,
        /// Not every kernel has the target.
        optional: bool,
    },
    Folder(&'static CStr),
    /// An empty file, for something to be bound to.
    File(CString),
    Node(CString, dev_t),
    Link {
        target: &'static CStr,
        at: &'static CStr,
    },
}

/// The changes that make the workload's view, prepared so that making them takes
/// nothing but system calls.
pub(crate) struct View {
    namespaces: CloneFlags,
    changes: Vec<Change>,
    /// Whether there are secrets as files.
    secrets: bool,
    /// How the application's root is mounted.
    root: MsFlags,
}

impl View {
    /// Prepares it, once the init's root has been entered. `own` is what the workload has as
    /// its `/run/enclave`.
    pub(crate) fn new(
        confinement: &Confinement,
        own: &Path,
        secrets: bool,
        simulated: bool,
    ) -> Result<Self, InitError> {
        // Shared memory and message queues would outlive the run, with their memory.
        let mut namespaces = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWIPC;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        let mut changes = vec![change(None, c"/", None, private)];
        make_devices(&mut changes, simulated)?;
        let plain = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        let (proc, sysfs) = (Some(c"proc"), Some(c"sysfs"));
        changes.push(change(proc, c"/view/proc", proc, plain));
        let read_only = plain | MsFlags::MS_RDONLY;
        changes.push(change(sysfs, c"/view/sys", sysfs, read_only));
        for file in MASKED_FILES {
            let null = Some(c"/view/dev/null");
            changes.push(optional(change(null, file, None, MsFlags::MS_BIND)));
        }
        for folder in MASKED_FOLDERS {
            let tmpfs = Some(c"tmpfs");
            changes.push(optional(change(tmpfs, folder, tmpfs, read_only)));
        }
        for path in READ_ONLY {
            changes.push(optional(change(Some(path), path, None, MsFlags::MS_BIND)));
            changes.push(optional(change(None, path, None, remount(read_only))));
        }
        if !simulated {
            namespaces |= CloneFlags::CLONE_NEWCGROUP;
            let kind = Some(c"cgroup2");
            changes.push(change(kind, GROUPS, kind, plain));
            changes.push(change(None, GROUPS, None, remount(read_only)));
        }
        let own = CString::new(own.as_os_str().as_bytes())
            .map_err(|_| InitError::Workload(format!("{} has a zero byte", own.display())))?;
        let secret = secrets.then_some((SECRETS, SECRETS_VIEW));
        for (source, at) in [(&*own, OWN_VIEW)].into_iter().chain(secret) {
            changes.push(change(Some(source), at, None, MsFlags::MS_BIND));
            changes.push(change(None, at, None, remount(read_only)));
        }
        // In a user namespace, what the host has set cannot be taken away.
        let mut flags = flags_of(APPLICATION)?;
        flags.insert(MsFlags::MS_NODEV);
        flags.set(MsFlags::MS_RDONLY, confinement.read_only_root);
        Ok(Self {
            namespaces,
            changes,
            secrets,
            root: remount(flags),
        })
    }

    /// Gives this process the view. Only system calls. What fails in the
    /// application's root is a step of its own.
    pub(super) fn enter(&self, at: &mut dyn FnMut(Step)) -> io::Result<()> {
        unshare(self.namespaces)?;
        for change in &self.changes {
            change.make()?;
        }
        let root = open(APPLICATION, FOLDER, Mode::empty())?;
        for (step, part, name, how) in PARTS {
            at(step);
            let target = folder(root.as_fd(), name)?;
            // As the working directory it can be named, whatever its path is by now.
            fchdir(&target)?;
            let none = None::<&CStr>;
            mount(Some(part), c".", none, how, none)?;
        }
        let secret = (Step::Secrets, SECRETS_VIEW, c"secrets");
        let secret = self.secrets.then_some(secret);
        for (step, part, name) in [(Step::Enclave, OWN_VIEW, c"enclave")]
            .into_iter()
            .chain(secret)
        {
            at(step);
            let run = folder(root.as_fd(), c"run")?;
            fchdir(&folder(run.as_fd(), name)?)?;
            let none = None::<&CStr>;
            mount(Some(part), c".", none, MsFlags::MS_MOVE, none)?;
        }
        at(Step::Root);
        fchdir(&root)?;
        // The init's root is stacked on the application's and taken off, with all
        // that is mounted there (pivot_root(2)).
        pivot_root(c".", c".")?;
        umount2(c".", MntFlags::MNT_DETACH)?;
        chdir(c"/")?;
        let none = None::<&CStr>;
        mount(none, c"/", none, self.root, none)?;
        Ok(())
    }
}

impl Change {
    /// Only system calls.
    fn make(&self) -> nix::Result<()> {
        match self {
            Self::Mount {
                source,
                target,
                kind,
                flags,
                options,
                optional,
            } => {
                let (source, target) = (source.as_deref(), target.as_c_str());
                match mount(source, target, *kind, *flags, *options) {
                    Err(Errno::ENOENT) if *optional => Ok(()),
                    result => result,
                }
            }
            Self::Folder(path) => mkdir(*path, Mode::from_bits_truncate(0o755)),
            Self::File(path) => {
                let new = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
                open(path.as_c_str(), new, Mode::from_bits_truncate(0o600)).map(drop)
            }
            Self::Node(path, device) => {
                let (path, everybody) = (path.as_c_str(), Mode::from_bits_truncate(0o666));
                mknod(path, SFlag::S_IFCHR, everybody, *device)?;
                // The mask of the process has taken some of it.
                fchmodat(AT_FDCWD, path, everybody, FollowSymlink)
            }
            Self::Link { target, at } => symlinkat(*target, AT_FDCWD, *at),
        }
    }
}

/// Steps that make `/dev`, with terminals and shared memory.
fn make_devices(changes: &mut Vec<Change>, simulated: bool) -> Result<(), InitError> {
    let inert = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    let (tmpfs, devpts) = (Some(c"tmpfs"), Some(c"devpts"));
    let dev = change(tmpfs, c"/view/dev", tmpfs, inert);
    changes.push(with_options(dev, DEV_OPTIONS));
    for (device, major, minor) in DEVICES {
        let path = |folder: &str| {
            CString::new(format!("{folder}/{device}"))
                .map_err(|_| InitError::Workload(format!("{device:?} has a zero byte")))
        };
        let (ours, theirs) = (path("/dev")?, path("/view/dev")?);
        if simulated {
            changes.push(Change::File(theirs.clone()));
            changes.push(change(Some(&ours), &theirs, None, MsFlags::MS_BIND));
        } else {
            changes.push(Change::Node(theirs, makedev(major, minor)));
        }
    }
    for (target, at) in LINKS {
        changes.push(Change::Link { target, at });
    }
    changes.push(Change::Folder(c"/view/dev/pts"));
    let terminals = change(devpts, c"/view/dev/pts", devpts, inert);
    changes.push(with_options(terminals, TERMINAL_OPTIONS));
    changes.push(Change::Folder(c"/view/dev/shm"));
    let memory = change(Some(SHM), c"/view/dev/shm", None, MsFlags::MS_BIND);
    changes.push(memory);
    Ok(())
}

/// A folder, and no link to one.
const FOLDER: OFlag = OFlag::O_PATH
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);

/// A folder of the application's root, which is made if the workload has removed it.
fn folder(root: BorrowedFd<'_>, name: &CStr) -> nix::Result<OwnedFd> {
    match openat(root, name, FOLDER, Mode::empty()) {
        Err(Errno::ENOENT) => {
            mkdirat(root, name, Mode::from_bits_truncate(0o755))?;
            openat(root, name, FOLDER, Mode::empty())
        }
        opened => opened,
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
        options: None,
        optional: false,
    }
}

fn optional(mut change: Change) -> Change {
    if let Change::Mount { optional, .. } = &mut change {
        *optional = true;
    }
    change
}

fn with_options(mut change: Change, text: &'static CStr) -> Change {
    if let Change::Mount { options, .. } = &mut change {
        *options = Some(text);
    }
    change
}

/// Changes a mount's flags, and not those of its file system, which others use.
fn remount(flags: MsFlags) -> MsFlags {
    MsFlags::MS_REMOUNT | MsFlags::MS_BIND | flags
}
