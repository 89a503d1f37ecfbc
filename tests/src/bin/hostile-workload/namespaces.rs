//! What root can do with namespaces of its own, where the image allows them: write
//! the limits of control groups, and take the init's place.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsFd;

use nix::fcntl::{OFlag, open, openat};
use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, chdir, unlinkat};

use crate::raw::{Arg, call};

/// The name that the init gives PID 1 of the workload's namespace.
const REAPER: &str = "enclave-init";
/// What is there once this program has run as that.
const REIGN: &str = "/reign";
const GROUPS: &str = "/tmp/groups";

/// Says so if this process was started in the place of the init's program.
pub(crate) fn reign() {
    if std::env::args().next().as_deref() == Some(REAPER) {
        let _ = File::create(REIGN);
        crate::server::wait_for_ever();
    }
}

/// Has every capability, over what is this namespace's own.
fn enter(namespaces: i32) -> anyhow::Result<()> {
    let namespaces = libc::CLONE_NEWUSER | libc::CLONE_NEWNS | namespaces;
    call(libc::SYS_unshare, [namespaces.into()])?;
    let none = None::<&str>;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(none, "/", none, private, none)?;
    Ok(())
}

/// Takes the group that the workload runs in for another's, and takes its limits off.
pub(crate) fn lift() -> anyhow::Result<()> {
    enter(libc::CLONE_NEWCGROUP)?;
    fs::create_dir_all(GROUPS)?;
    mount(
        Some("none"),
        GROUPS,
        Some("cgroup2"),
        MsFlags::empty(),
        None::<&str>,
    )?;
    let group = |file: &str| format!("{GROUPS}/{file}");
    fs::create_dir_all(group("own"))?;
    fs::write(group("own/cgroup.procs"), "0")?;
    // From here on the group above is no root of this namespace.
    call(libc::SYS_unshare, [libc::CLONE_NEWCGROUP.into()])?;
    let lifted: Vec<_> = ["memory.max", "pids.max", "cpu.weight"]
        .into_iter()
        .filter(|file| {
            let value = if *file == "cpu.weight" {
                "10000"
            } else {
                "max"
            };
            fs::write(group(file), value).is_ok()
        })
        .collect();
    println!("lifted {}", lifted.join(" "));
    Ok(())
}

/// Removes the folders that the workload's file systems are mounted on, puts a copy of
/// this program where the init's could be looked for, and ends the workload.
pub(crate) fn usurp() -> anyhow::Result<()> {
    let mut program = Vec::new();
    File::open("/proc/self/exe")?.read_to_end(&mut program)?;
    enter(0)?;
    let folder = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
    let root = open("/", folder, Mode::empty())?;
    // A root elsewhere: the old one is no mount point of this namespace any more.
    fs::create_dir_all("/elsewhere/old")?;
    let none = None::<&str>;
    let bind = MsFlags::MS_BIND;
    mount(Some("/elsewhere"), "/elsewhere", none, bind, none)?;
    chdir("/elsewhere")?;
    call(libc::SYS_pivot_root, [c".".into(), Arg::Text(c"old")])?;
    umount2("/old", MntFlags::MNT_DETACH)?;
    for name in ["proc", "sys", "dev", "run", "tmp"] {
        unlinkat(&root, name, UnlinkatFlags::RemoveDir)?;
    }
    let mode = Mode::from_bits_truncate(0o755);
    for folder in ["proc", "proc/self"] {
        mkdirat(&root, folder, mode)?;
    }
    plant(&root, &program)?;
    println!("planted");
    // SAFETY: it takes nothing.
    let server = unsafe { libc::getppid() };
    call(libc::SYS_kill, [server.into(), libc::SIGKILL.into()])?;
    Ok(())
}

fn plant(root: impl AsFd, program: &[u8]) -> anyhow::Result<()> {
    let new = OFlag::O_CREAT | OFlag::O_WRONLY;
    let mode = Mode::from_bits_truncate(0o755);
    let file = openat(root, "proc/self/exe", new, mode)?;
    File::from(file).write_all(program)?;
    Ok(())
}
