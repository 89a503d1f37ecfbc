//! What the workload tries, to see what it may.

use std::ffi::CStr;
use std::fs;
use std::io::Error;
use std::os::unix::fs::PermissionsExt;

use nix::libc::{self, c_int, c_long, c_ulong};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// What every run calls the objects that processes share, and how it makes new ones.
const SHARED_KEY: c_ulong = 7;
const NEW_SHARED: c_int = libc::IPC_CREAT | libc::IPC_EXCL | 0o600;

/// What the kernel says of this process.
pub(crate) fn status() {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    for line in status.lines() {
        let (name, value) = line.split_once(":\t").unwrap();
        if name.starts_with("Cap") || ["NoNewPrivs", "Seccomp", "Pid", "PPid"].contains(&name) {
            println!("status {name} {value}");
        }
    }
}

/// Makes a system call and says what came of it.
pub(crate) fn attempt(name: &str) {
    let result = call(name);
    say(&format!("try {name}"), result >= 0);
}

fn say(what: &str, is_done: bool) {
    if is_done {
        println!("{what}: done");
    } else {
        // The constant's name, without the text behind it.
        let error = nix::errno::Errno::from_raw(Error::last_os_error().raw_os_error().unwrap());
        println!("{what}: {error:?}");
    }
}

fn call(name: &str) -> c_long {
    let socket = |family: c_int| {
        // SAFETY: takes numbers.
        unsafe { libc::socket(family, libc::SOCK_STREAM, 0) }.into()
    };
    let numbers = |call: c_long, first: c_ulong, second: c_ulong| {
        // SAFETY: every caller gives a call that takes numbers, or null addresses.
        unsafe { libc::syscall(call, first, second, 0, 0, 0, 0) }
    };
    let path = |call: c_long, path: &CStr| {
        // SAFETY: every caller gives a call that takes a path, then numbers.
        unsafe { libc::syscall(call, path.as_ptr(), 0, 0, 0, 0) }
    };
    let flag = |flag: c_int| c_ulong::from(flag.cast_unsigned());
    match name {
        "unix" => socket(libc::AF_UNIX),
        "inet" => socket(libc::AF_INET),
        "inet6" => socket(libc::AF_INET6),
        "netlink" => {
            // SAFETY: takes numbers.
            unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW, 0) }.into()
        }
        "vsock" => socket(libc::AF_VSOCK),
        "alg" => socket(libc::AF_ALG),
        "packet" => socket(libc::AF_PACKET),
        "io_uring" => numbers(libc::SYS_io_uring_setup, 1, 0),
        "ptrace" => numbers(libc::SYS_ptrace, libc::PTRACE_ATTACH.into(), 1),
        "process_vm" => numbers(libc::SYS_process_vm_readv, 1, 0),
        "user_namespace" => numbers(libc::SYS_unshare, flag(libc::CLONE_NEWUSER), 0),
        "network_namespace" => numbers(libc::SYS_unshare, flag(libc::CLONE_NEWNET), 0),
        "clone_namespace" => numbers(
            libc::SYS_clone,
            flag(libc::CLONE_NEWUSER | libc::SIGCHLD),
            0,
        ),
        "clone3" => numbers(libc::SYS_clone3, 0, 0),
        "unshare_files" => numbers(libc::SYS_unshare, flag(libc::CLONE_FILES), 0),
        "setns" => numbers(libc::SYS_setns, 0, 0),
        "mount" => numbers(libc::SYS_mount, 0, 0),
        "umount" => path(libc::SYS_umount2, c"/proc"),
        "reboot" => numbers(libc::SYS_reboot, 0, 0),
        "clock" => numbers(libc::SYS_clock_settime, 0, 0),
        "bpf" => numbers(libc::SYS_bpf, 0, 0),
        "perf" => numbers(libc::SYS_perf_event_open, 0, 0),
        "keyring" => numbers(libc::SYS_keyctl, 0, 0),
        "module" => numbers(libc::SYS_finit_module, 0, 0),
        "kexec" => numbers(libc::SYS_kexec_load, 0, 0),
        "handle" => numbers(libc::SYS_open_by_handle_at, 0, 0),
        "message_queue" => numbers(libc::SYS_msgget, SHARED_KEY, flag(NEW_SHARED)),
        "semaphores" => {
            // SAFETY: takes numbers.
            unsafe { libc::syscall(libc::SYS_semget, SHARED_KEY, 1, NEW_SHARED) }
        }
        "shared_memory" => {
            // SAFETY: takes numbers.
            unsafe { libc::syscall(libc::SYS_shmget, SHARED_KEY, 4096, NEW_SHARED) }
        }
        "unknown" => numbers(500, 0, 0),
        "chroot" => path(libc::SYS_chroot, c"/"),
        "chown" => {
            fs::write("/tmp/owned", "").unwrap();
            // SAFETY: takes a path and numbers.
            unsafe { libc::chown(c"/tmp/owned".as_ptr(), 1, 1) }.into()
        }
        "device" => {
            let null = libc::makedev(1, 3);
            // SAFETY: takes a path and numbers.
            unsafe { libc::mknod(c"/tmp/device".as_ptr(), libc::S_IFCHR | 0o666, null) }.into()
        }
        "low_port" => std::net::TcpListener::bind(("127.0.0.1", 80)).map_or(-1, |_listener| 0),
        _ => panic!("what is {name}?"),
    }
}

/// Opens a file for reading and reads a byte of it.
pub(crate) fn open(path: &str) {
    use std::io::Read;
    match fs::File::open(path).and_then(|mut file| file.read(&mut [0])) {
        Ok(count) => println!("open {path}: {count}"),
        Err(error) => {
            let error = nix::errno::Errno::from_raw(error.raw_os_error().unwrap());
            println!("open {path}: {error:?}");
        }
    }
}

/// Writes to a file that is there, or makes one.
pub(crate) fn write(path: &str) {
    let result = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path);
    match result {
        Ok(_) => println!("write {path}: done"),
        Err(error) => {
            let error = nix::errno::Errno::from_raw(error.raw_os_error().unwrap());
            println!("write {path}: {error:?}");
        }
    }
}

/// The names in a folder.
pub(crate) fn list(path: &str) {
    let mut names: Vec<_> = fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort_unstable();
    println!("list {path}: {}", names.join(" "));
}

/// The size of a file system, in MiB.
pub(crate) fn room(path: &str) {
    let found = nix::sys::statvfs::statvfs(path).unwrap();
    let mib = found.blocks() * found.fragment_size() / (1024 * 1024);
    println!("room {path}: {mib}");
}

/// Prints a file's permissions.
pub(crate) fn mode(path: &str) {
    let mode = fs::symlink_metadata(path).unwrap().permissions().mode();
    println!("mode {path}: {:o}", mode & 0o7777);
}

/// Sends a signal.
pub(crate) fn signal(pid: i32, name: &str) {
    let signal: Signal = name.parse().unwrap();
    match kill(Pid::from_raw(pid), signal) {
        Ok(()) => println!("signal {pid}: done"),
        Err(error) => println!("signal {pid}: {error:?}"),
    }
}
