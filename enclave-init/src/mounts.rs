//! The file systems that a program expects, and the change of root into the
//! application's.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::{chdir, chroot, pivot_root};

use crate::error::{Doing, InitError};

/// Device nodes that every program may use; a simulated enclave borrows the host's.
const DEVICES: [&str; 6] = ["full", "null", "random", "tty", "urandom", "zero"];
/// Links that programs expect in `/dev`.
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

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
pub(crate) fn enter(root: &Path, simulated: bool) -> Result<(), InitError> {
    if simulated {
        // Nothing that is mounted here may be seen outside.
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>)
            .doing(|| "making the mounts private".to_owned())?;
    }
    bind(root, root)?;
    mount_kernel_views(root)?;
    mount_devices(&root.join("dev"), simulated)?;
    mount_scratch(root)?;
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

/// `/dev`, with terminals and shared memory.
fn mount_devices(dev: &Path, simulated: bool) -> Result<(), InitError> {
    let inert = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    if simulated {
        mount_at("tmpfs", dev, "tmpfs", inert, "mode=0755,size=64k")?;
        for device in DEVICES {
            let node = dev.join(device);
            File::create(&node).doing(|| node.display().to_string())?;
            bind(&Path::new("/dev").join(device), &node)?;
        }
    } else {
        let nosuid = MsFlags::MS_NOSUID;
        mount_at("devtmpfs", dev, "devtmpfs", nosuid, "mode=0755")?;
    }
    for (name, target) in LINKS {
        match std::os::unix::fs::symlink(target, dev.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(error).doing(|| format!("linking /dev/{name}"));
            }
            _ => {}
        }
    }
    let terminals = "newinstance,ptmxmode=0666,mode=0620";
    mount_at("devpts", &dev.join("pts"), "devpts", inert, terminals)?;
    let data = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount_at("shm", &dev.join("shm"), "tmpfs", data, "mode=1777")
}

/// The folders that start empty.
fn mount_scratch(root: &Path) -> Result<(), InitError> {
    let data = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount_at("run", &root.join("run"), "tmpfs", data, "mode=0755")?;
    mount_at("tmp", &root.join("tmp"), "tmpfs", data, "mode=1777")
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
