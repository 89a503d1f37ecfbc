//! Taking the init's place: what is mounted in the root is taken off by removing the
//! folders below, and something else is put there for the init to find.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsFd;

use nix::fcntl::{OFlag, open, openat};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, chdir, pivot_root, symlinkat, unlinkat};

/// The name that the init gives PID 1 of the workload's namespace.
const REAPER: &str = "enclave-init";
/// What is there once a program of the workload has run as that.
const REIGN: &str = "/reign";
const FOLDERS: [&str; 5] = ["proc", "sys", "dev", "run", "tmp"];

/// Says so if this process was started in the place of the init's program.
pub(crate) fn reign() {
    if std::env::args().next().as_deref() == Some(REAPER) {
        fs::write(REIGN, "").unwrap();
        crate::wait_for_ever();
    }
}

/// Removes the folders that the workload's file systems are mounted on, and puts
/// there what the words say: a copy of this program where the init's is found, or
/// a link in each folder's place. Then ends.
pub(crate) fn usurp(how: &str) {
    let program = fs::read("/proc/self/exe").unwrap();
    // Users need no names there: the files are this process's own all the same.
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS).unwrap();
    let none = None::<&str>;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(none, "/", none, private, none).unwrap();
    let folder = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
    let root = open("/", folder, Mode::empty()).unwrap();
    // A root elsewhere: the old one is no mount point of this namespace any more.
    fs::create_dir_all("/elsewhere/old").unwrap();
    mount(
        Some("/elsewhere"),
        "/elsewhere",
        none,
        MsFlags::MS_BIND,
        none,
    )
    .unwrap();
    chdir("/elsewhere").unwrap();
    pivot_root(".", "old").unwrap();
    umount2("/old", MntFlags::MNT_DETACH).unwrap();
    for name in FOLDERS {
        let removed = unlinkat(&root, name, UnlinkatFlags::RemoveDir);
        println!("remove {name}: {removed:?}");
        if how == "links" {
            symlinkat("/elsewhere", &root, name).unwrap();
        }
    }
    if how == "program" {
        plant(&root, &program);
    }
    std::process::exit(1);
}

/// Puts a link in a folder's place. Then ends.
pub(crate) fn relink(folder: &str, target: &str) {
    fs::rename(folder, format!("{folder}.old")).unwrap();
    std::os::unix::fs::symlink(target, folder).unwrap();
    std::process::exit(1);
}

fn plant(root: impl AsFd, program: &[u8]) {
    let mode = Mode::from_bits_truncate(0o755);
    for folder in ["proc", "proc/self", "dev"] {
        mkdirat(&root, folder, mode).unwrap();
    }
    let new = OFlag::O_CREAT | OFlag::O_WRONLY;
    let exe = openat(&root, "proc/self/exe", new, mode).unwrap();
    File::from(exe).write_all(program).unwrap();
    // What the init would open for the workload to read.
    let null = openat(&root, "dev/null", new, mode).unwrap();
    File::from(null).write_all(b"planted").unwrap();
}

/// Whether standard input is empty, and a program of the workload's has run as PID 1.
pub(crate) fn look() {
    let mut input = Vec::new();
    std::io::stdin().read_to_end(&mut input).unwrap();
    println!("input {:?}", String::from_utf8_lossy(&input));
    println!("reign {}", fs::exists(REIGN).unwrap());
}
