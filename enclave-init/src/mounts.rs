//! The init's own root, and what of it the workload gets.
//!
//! A workload that is root may remove or replace every folder below its own root, and
//! what is mounted on a folder goes with it, in every mount namespace. So the init has
//! a root that the workload does not see, with `/proc`, `/sys` and `/dev` of its own:
//!
//! | folder | what |
//! |---|---|
//! | `/proc`, `/sys`, `/dev` | the machine's, for the init |
//! | `/application` | the image's files, on which the init mounts nothing |
//! | `/scratch` | the workload's files in memory, which outlive its restarts; the image's `/tmp`, if it has something in it |
//! | `/enclave` | for each workload a folder that is its `/run/enclave`, which it can only read |
//! | `/secrets` | declared secrets, which the workload can only read |
//! | `/view` | where each run's own mounts are put together |
//! | `/program` | the init's own program, which can only be read |
//!
//! Once the workload has been started, the init resolves no path below `/application`
//! or `/scratch`; the workload's process moves there itself (`confinement::view`).

use std::ffi::CStr;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::NixPath;
use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::{chdir, chroot, pivot_root};

use crate::args::Simulation;
use crate::covered;
use crate::error::{Doing, InitError};

/// The image's files, in the init's root.
pub(crate) const APPLICATION: &CStr = c"/application";
/// What the workload's folders in memory are bound from.
pub(crate) const RUN: &CStr = c"/scratch/run";
pub(crate) const SHM: &CStr = c"/scratch/shm";
pub(crate) const TMP: &CStr = c"/scratch/tmp";
/// Where secrets are written, in the init's root.
pub(crate) const SECRETS_FOLDER: &str = "/secrets";
/// The same, for what binds it.
pub(crate) const SECRETS: &CStr = c"/secrets";

/// Device nodes that every program may use, with their major and minor numbers
/// (Linux, `admin-guide/devices.txt`); a simulated enclave borrows the host's.
pub(crate) const DEVICES: [(&str, u64, u64); 6] = [
    ("full", 1, 7),
    ("null", 1, 3),
    ("random", 1, 8),
    ("tty", 5, 0),
    ("urandom", 1, 9),
    ("zero", 1, 5),
];

/// The folder of the application's file system in the ramdisks' tree.
const ROOTFS: &str = "rootfs";
/// Where the init's root is mounted before it is entered; a simulation covers its
/// tree instead.
const PLACE: &str = "/init-root";
/// The folders of the init's root.
const FOLDERS: [&str; 13] = [
    "proc",
    "sys",
    "dev",
    "application",
    "enclave",
    "scratch/run",
    "scratch/shm",
    "scratch/tmp",
    "view/proc",
    "view/sys",
    "view/dev",
    "view/enclave",
    "view/secrets",
];
/// The folders of the application's root that something is mounted on.
const MOUNT_POINTS: [&str; 5] = ["proc", "sys", "dev", "run", "tmp"];

/// Folders of `/run` that are the init's, whatever the image has there.
const OF_THE_INIT: [&str; 2] = ["enclave", "secrets"];

/// Room for files, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    /// In `/`, beside the image's files.
    pub(crate) root: u64,
    pub(crate) run: u64,
    pub(crate) shm: u64,
    pub(crate) tmp: u64,
}

/// The init's own program, in its root.
///
/// Whoever can look into a process can open the program that it runs (`/proc/PID/exe`), and
/// the workload can have the init's run as itself: it need but put a link to `/proc/self/exe`
/// in the place of a command that the init runs beside it, or have a script that names it as
/// its interpreter (CVE-2019-5736). As the owner of the file, which root is and under `sim`
/// every user, it could then make it a program that nobody may execute. Through a mount that
/// can only be read it cannot, and unlike a sealed copy in memory the mount takes none, and
/// needs no kernel that can forbid to change the mode of one (`F_SEAL_EXEC`, Linux 6.3).
pub(crate) const PROGRAM: &str = "/program";

/// Where each workload's `/run/enclave` is, in the init's root.
const OWN_FOLDERS: &str = "/enclave";
/// How it is mounted: there are the runtime configuration, which all share, and of each
/// workload a folder with two sockets and a link to it.
const OWN_OPTIONS: &str = "mode=0755,size=64k,nr_inodes=128";

/// How the secrets' file system is mounted: each of the 64 files takes at most 32 KiB, and
/// as much again while it is replaced.
const SECRETS_OPTIONS: &str = "mode=0755,size=4m,nr_inodes=256";

/// Where the machine's own `/dev` and `/proc` must be before anything else works.
pub(crate) fn mount_early() -> Result<(), InitError> {
    mount_at("proc", Path::new("/proc"), "proc", MsFlags::empty(), "")?;
    mount_at(
        "devtmpfs",
        Path::new("/dev"),
        "devtmpfs",
        MsFlags::MS_NOSUID,
        "mode=0755",
    )
}

/// Makes the init's root and enters it. `simulation` is none on a machine of its own.
pub(crate) fn enter(
    tree: &Path,
    simulation: Option<&Simulation>,
    space: Room,
) -> Result<(), InitError> {
    let simulated = simulation.is_some();
    if simulated {
        // Nothing that is mounted here may be seen outside.
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>)
            .doing(|| "making the mounts private".to_owned())?;
    }
    // By a descriptor: the tree may be about to be covered.
    let rootfs = tree.join(ROOTFS);
    let rootfs = File::options()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW)
        .open(&rootfs)
        .doing(|| format!("opening {}", rootfs.display()))?;
    let own_tmp = !is_empty(&PathBuf::from(format!(
        "/proc/self/fd/{}/tmp",
        rootfs.as_raw_fd()
    )))?;
    if simulation.is_none_or(|simulation| simulation.users.is_some()) {
        let tmp = if own_tmp { space.tmp } else { 0 };
        limit_root(tree, space.root.saturating_add(tmp))?;
    }
    let root = if simulated { tree } else { Path::new(PLACE) };
    mount_at(
        "init",
        root,
        "tmpfs",
        MsFlags::MS_NOSUID,
        "mode=0755,size=64k",
    )?;
    for folder in FOLDERS {
        let folder = root.join(folder);
        fs::create_dir_all(&folder).doing(|| format!("making {}", folder.display()))?;
    }
    let application = root.join("application");
    bind(
        &PathBuf::from(format!("/proc/self/fd/{}", rootfs.as_raw_fd())),
        &application,
    )?;
    for point in MOUNT_POINTS {
        make_folder(
            &application,
            point,
            if point == "tmp" { 0o1777 } else { 0o755 },
        )?;
    }
    bind_program(&root.join(PROGRAM.trim_start_matches('/')))?;
    if simulated {
        borrow_kernel_views(root)?;
    } else {
        move_kernel_views(root)?;
    }
    mount_files("shm", &root.join("scratch/shm"), "1777", space.shm)?;
    let (images, tmp) = (application.join("tmp"), root.join("scratch/tmp"));
    if own_tmp {
        bind(&images, &tmp)?;
    } else {
        mount_files("tmp", &tmp, "1777", space.tmp)?;
        covered::give_same(&images, &tmp).doing(|| "giving /tmp its owner".to_owned())?;
    }
    let (images, run) = (application.join("run"), root.join("scratch/run"));
    let copying = || "copying what the image has in /run".to_owned();
    let size = covered::size(&images).doing(copying)?;
    mount_files("run", &run, "0755", space.run.saturating_add(size))?;
    covered::copy(&images, &run, &OF_THE_INIT).doing(copying)?;
    chdir(root).doing(|| format!("entering {}", root.display()))?;
    if simulated {
        // The old root is stacked on the new one and taken off (pivot_root(2)).
        pivot_root(".", ".").doing(|| "pivot_root".to_owned())?;
        umount2(".", MntFlags::MNT_DETACH).doing(|| "leaving the old root".to_owned())?;
    } else {
        // An initramfs cannot be pivoted away from; it is covered instead.
        mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>)
            .doing(|| "moving the root".to_owned())?;
        chroot(".").doing(|| "chroot".to_owned())?;
    }
    chdir("/").doing(|| "entering /".to_owned())
}

/// Makes the file system of declared secrets, once the init's root has been entered.
pub(crate) fn mount_secrets() -> Result<(), InitError> {
    let inert = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let target = Path::new(SECRETS_FOLDER);
    mount_at("secrets", target, "tmpfs", inert, SECRETS_OPTIONS)
}

/// Makes each workload's `/run/enclave`, once the init's root has been entered.
pub(crate) fn mount_own_folders(workloads: usize) -> Result<(), InitError> {
    let inert = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let target = Path::new(OWN_FOLDERS);
    mount_at("enclave", target, "tmpfs", inert, OWN_OPTIONS)?;
    for workload in 0..workloads {
        let folder = own_folder(workload);
        fs::create_dir(&folder).doing(|| format!("making {}", folder.display()))?;
    }
    Ok(())
}

/// What is the `/run/enclave` of the workload of this place: no other one sees it, so what is
/// said to a socket in it is said by this one.
pub(crate) fn own_folder(workload: usize) -> PathBuf {
    Path::new(OWN_FOLDERS).join(workload.to_string())
}

/// Names and resolver for the application. The image's own
/// files are replaced, as every container runtime does; the process's mask lets
/// everybody read them.
pub(crate) fn write_system_files(name: &str) -> Result<(), InitError> {
    let application = Path::new("/application");
    make_folder(application, "etc", 0o755)?;
    for (file, contents) in [
        (
            "resolv.conf",
            format!(
                "nameserver {}\noptions timeout:5 attempts:1\n",
                manifest::INIT_ADDRESS
            ),
        ),
        (
            // The name is at 127.0.0.1, where ingress arrives: programs bind to it.
            "hosts",
            format!("127.0.0.1 localhost {name}\n::1 localhost\n"),
        ),
        ("hostname", format!("{name}\n")),
    ] {
        let path = application.join("etc").join(file);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).doing(|| format!("replacing /etc/{file}"));
            }
            _ => {}
        }
        fs::write(&path, contents).doing(|| format!("writing /etc/{file}"))?;
    }
    nix::unistd::sethostname(name).doing(|| "setting the host name".to_owned())
}

/// Mounts this program where it can only be read.
fn bind_program(target: &Path) -> Result<(), InitError> {
    File::create(target).doing(|| format!("making {}", target.display()))?;
    bind(Path::new("/proc/self/exe"), target)?;
    let none = None::<&str>;
    let flags = flags_of(target)? | MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    mount(none, target, none, flags, none)
        .doing(|| "making the init's program read-only".to_owned())
}

/// The flags that a file system is mounted with here: in a user namespace none of them can
/// be taken away.
pub(crate) fn flags_of<P: ?Sized + NixPath>(path: &P) -> Result<MsFlags, InitError> {
    let found = statvfs(path)
        .doing(|| "looking at a mount's flags".to_owned())?
        .flags();
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

/// Takes along what the machine's start has mounted: nothing is left behind that the
/// workload's namespace would inherit.
fn move_kernel_views(root: &Path) -> Result<(), InitError> {
    for view in ["proc", "sys", "dev"] {
        let from = Path::new("/").join(view);
        let none = None::<&str>;
        mount(Some(&from), &root.join(view), none, MsFlags::MS_MOVE, none)
            .doing(|| format!("moving {}", from.display()))?;
    }
    Ok(())
}

/// `/proc` and `/sys` of a simulation's namespaces, and the host's devices.
fn borrow_kernel_views(root: &Path) -> Result<(), InitError> {
    let plain = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount_at("proc", &root.join("proc"), "proc", plain, "")?;
    let read_only = plain | MsFlags::MS_RDONLY;
    mount_at("sysfs", &root.join("sys"), "sysfs", read_only, "")?;
    for (device, _, _) in DEVICES {
        let node = root.join("dev").join(device);
        File::create(&node).doing(|| node.display().to_string())?;
        bind(&Path::new("/dev").join(device), &node)?;
    }
    Ok(())
}

/// A file system in memory, of at most `size` bytes.
fn mount_files(source: &str, target: &Path, mode: &str, size: u64) -> Result<(), InitError> {
    let data = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let options = format!("mode={mode},size={}", at_least_a_page(size));
    mount_at(source, target, "tmpfs", data, &options)
}

/// Bounds the file system that holds the image's files: the kernel has unpacked them
/// into one that may take nearly all of the memory. `room` is what is left beside them.
fn limit_root(tree: &Path, room: u64) -> Result<(), InitError> {
    let found = statfs(tree).doing(|| "looking at /".to_owned())?;
    if found.filesystem_type() != TMPFS_MAGIC {
        return Err(InitError::Root);
    }
    let block = u64::try_from(found.block_size()).expect("the kernel gives a tmpfs its page size");
    let used = found.blocks().saturating_sub(found.blocks_free());
    let size = used.saturating_mul(block).saturating_add(room);
    let options = format!("size={}", at_least_a_page(size));
    let none = None::<&str>;
    mount(none, tree, none, MsFlags::MS_REMOUNT, Some(&*options))
        .doing(|| "limiting the size of /".to_owned())
}

/// Whether the image has nothing in its `/tmp`, or has none. Other container runtimes mount
/// nothing there. What it has stays where it is: a copy would take the memory once more, and
/// what is built there can be as large as the image. It then has no file system of its own.
fn is_empty(tmp: &Path) -> Result<bool, InitError> {
    // No link is followed, which is refused as a mount point.
    if !fs::symlink_metadata(tmp).is_ok_and(|found| found.is_dir()) {
        return Ok(true);
    }
    let mut entries = fs::read_dir(tmp).doing(|| "looking into the image's /tmp".to_owned())?;
    Ok(entries.next().is_none())
}

/// Makes a folder of the image if there is none.
fn make_folder(application: &Path, name: &str, mode: u32) -> Result<(), InitError> {
    let path = application.join(name);
    // A link would lead out of the application's root.
    match fs::symlink_metadata(&path) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(InitError::MountPoint(Path::new("/").join(name))),
        Err(_) => fs::create_dir(&path)
            .and_then(|()| fs::set_permissions(&path, Permissions::from_mode(mode)))
            .doing(|| format!("making /{name} in the image")),
    }
}

/// No size means no limit to tmpfs, and less than a page is none.
fn at_least_a_page(size: u64) -> u64 {
    size.max(4096)
}

fn bind(what: &Path, target: &Path) -> Result<(), InitError> {
    let kind = None::<&str>;
    mount(Some(what), target, kind, MsFlags::MS_BIND, None::<&str>)
        .doing(|| format!("binding {}", what.display()))
}

/// Mounts a file system of this kind, and makes its folder.
pub(crate) fn mount_at(
    source: &str,
    target: &Path,
    kind: &str,
    flags: MsFlags,
    options: &str,
) -> Result<(), InitError> {
    fs::create_dir_all(target).doing(|| format!("making {}", target.display()))?;
    mount(Some(source), target, Some(kind), flags, Some(options))
        .doing(|| format!("mounting {kind} on {}", target.display()))
}
