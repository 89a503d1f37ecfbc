//! The file systems that a program expects, and the change of root into the
//! application's.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::AT_FDCWD;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::FchmodatFlags::FollowSymlink;
use nix::sys::stat::{Mode, SFlag, fchmodat, makedev, mknod};
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use nix::unistd::{chdir, chroot, pivot_root};

use crate::confinement::Sizes;
use crate::error::{Doing, InitError};

/// Device nodes that every program may use, with their major and minor numbers
/// (Linux, `admin-guide/devices.txt`); a simulated enclave borrows the host's.
const DEVICES: [(&str, u64, u64); 6] = [
    ("full", 1, 7),
    ("null", 1, 3),
    ("random", 1, 8),
    ("tty", 5, 0),
    ("urandom", 1, 9),
    ("zero", 1, 5),
];
/// Links that programs expect in `/dev`.
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Terminals at a time: more than interactive programs use. The kernel's own number is
/// for all instances together.
const MAX_TERMINALS: u32 = 256;

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

/// Mounts what the application needs below `root`, and makes `root` the root of
/// this mount namespace.
pub(crate) fn enter(root: &Path, simulated: bool, sizes: &Sizes) -> Result<(), InitError> {
    if simulated {
        // Nothing that is mounted here may be seen outside.
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>)
            .doing(|| "making the mounts private".to_owned())?;
    }
    bind(root, root)?;
    mount_kernel_views(root)?;
    mount_devices(&root.join("dev"), simulated, sizes)?;
    mount_scratch(root, sizes)?;
    if !simulated {
        limit_root(sizes)?;
    }
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

/// Names, resolver and kernel settings for the application. The image's own
/// files are replaced, as every container runtime does.
pub(crate) fn write_system_files(name: &str) -> Result<(), InitError> {
    let etc = PathBuf::from("/etc");
    fs::create_dir_all(&etc).doing(|| "making /etc".to_owned())?;
    for (file, contents) in [
        (
            "resolv.conf",
            format!(
                "nameserver {}\noptions timeout:5 attempts:1\n",
                crate::egress::NAME_SERVER
            ),
        ),
        (
            "hosts",
            format!("127.0.0.1 localhost {name}\n::1 localhost\n"),
        ),
        ("hostname", format!("{name}\n")),
    ] {
        let path = etc.join(file);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).doing(|| path.display().to_string());
            }
            _ => {}
        }
        fs::write(&path, contents).doing(|| path.display().to_string())?;
        fs::set_permissions(&path, Permissions::from_mode(0o644))
            .doing(|| path.display().to_string())?;
    }
    nix::unistd::sethostname(name).doing(|| "setting the host name".to_owned())?;
    // As in other container runtimes, any user may listen on any port.
    fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0")
        .doing(|| "allowing low ports".to_owned())
}

/// `/proc` and `/sys`.
fn mount_kernel_views(root: &Path) -> Result<(), InitError> {
    let plain = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let read_only = plain | MsFlags::MS_RDONLY;
    mount_at("proc", &root.join("proc"), "proc", plain, "")?;
    mount_at("sysfs", &root.join("sys"), "sysfs", read_only, "")
}

/// `/dev`, with terminals and shared memory. On a machine, what programs see is
/// covered by what the init needs; the workload's own view takes that off.
fn mount_devices(dev: &Path, simulated: bool, sizes: &Sizes) -> Result<(), InitError> {
    let inert = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    mount_at("tmpfs", dev, "tmpfs", inert, "mode=0755,size=64k")?;
    for (device, major, minor) in DEVICES {
        let node = dev.join(device);
        if simulated {
            File::create(&node).doing(|| node.display().to_string())?;
            bind(&Path::new("/dev").join(device), &node)?;
        } else {
            let everybody = Mode::from_bits_truncate(0o666);
            mknod(&node, SFlag::S_IFCHR, everybody, makedev(major, minor))
                .and_then(|()| fchmodat(AT_FDCWD, &node, everybody, FollowSymlink))
                .doing(|| format!("making {}", node.display()))?;
        }
    }
    for (name, target) in LINKS {
        std::os::unix::fs::symlink(target, dev.join(name))
            .doing(|| format!("linking /dev/{name}"))?;
    }
    let terminals = format!("newinstance,ptmxmode=0666,mode=0620,max={MAX_TERMINALS}");
    mount_at("devpts", &dev.join("pts"), "devpts", inert, &terminals)?;
    mount_files("shm", &dev.join("shm"), "1777", sizes.shm)?;
    if !simulated {
        mount_at("devtmpfs", dev, "devtmpfs", MsFlags::MS_NOSUID, "mode=0755")?;
    }
    Ok(())
}

/// The folders that start empty.
fn mount_scratch(root: &Path, sizes: &Sizes) -> Result<(), InitError> {
    mount_files("run", &root.join("run"), "0755", sizes.run)?;
    mount_files("tmp", &root.join("tmp"), "1777", sizes.tmp)
}

/// A file system in memory, of at most `size` bytes.
fn mount_files(source: &str, target: &Path, mode: &str, size: u64) -> Result<(), InitError> {
    let data = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let options = format!("mode={mode},size={}", at_least_a_page(size));
    mount_at(source, target, "tmpfs", data, &options)
}

/// Bounds the machine's own file system, which holds the image's files: the kernel
/// has unpacked them into one that may take nearly all of the memory.
fn limit_root(sizes: &Sizes) -> Result<(), InitError> {
    let found = statfs("/").doing(|| "looking at /".to_owned())?;
    if found.filesystem_type() != TMPFS_MAGIC {
        return Err(InitError::Root);
    }
    let block = u64::try_from(found.block_size()).unwrap_or_default();
    let used = found.blocks().saturating_sub(found.blocks_free());
    let size = used.saturating_mul(block).saturating_add(sizes.root);
    let options = format!("size={}", at_least_a_page(size));
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REMOUNT, Some(&*options))
        .doing(|| "limiting the size of /".to_owned())
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
    // A link would lead out of the application's root, which is not entered yet.
    if fs::symlink_metadata(target).is_ok_and(|found| !found.is_dir()) {
        return Err(InitError::MountPoint(target.to_owned()));
    }
    fs::create_dir_all(target).doing(|| format!("making {}", target.display()))?;
    mount(Some(source), target, Some(kind), flags, Some(options))
        .doing(|| format!("mounting {kind} on {}", target.display()))
}
