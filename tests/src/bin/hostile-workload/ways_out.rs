//! Ways out of the confinement, each by a name. An attempt that succeeds has
//! gone as far as it says, and no further than shows that it can.

use std::ffi::{CStr, CString};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::process::Command;

use nix::errno::Errno;
use nix::libc;

use crate::kernel;
use crate::raw::{Arg, Outcome, call, end, errno, fork};

/// What an attempt has reached.
type Attempt = Result<String, Errno>;

const PID1: i32 = 1;
const AF_VSOCK: i32 = libc::AF_VSOCK;

/// Makes an attempt and says what came of it.
pub(crate) fn attempt(name: &str, words: &[&str]) {
    match run(name, words) {
        Some(Ok(detail)) => println!("done {detail}"),
        Some(Err(errno)) => println!("refused {errno:?}"),
        None => println!("unknown {name} {words:?}"),
    }
}

fn run(name: &str, words: &[&str]) -> Option<Attempt> {
    let word = |number: usize| words.get(number).copied();
    let path = || word(0).and_then(|word| CString::new(word).ok());
    let number = |index| word(index).and_then(|word| word.parse::<i32>().ok());
    Some(match name {
        "vsock" => reached(vsock(number(0)?)),
        "vsock-pair" => reached(call(
            libc::SYS_socketpair,
            [
                AF_VSOCK.into(),
                libc::SOCK_STREAM.into(),
                0.into(),
                Arg::Buffer(&mut [0; 8]),
            ],
        )),
        "vsock-connect" => vsock_connect(number(0)?, number(1)?),
        #[cfg(target_arch = "x86_64")]
        "vsock-x32" => reached(call(
            // The number of `socket` with the bit that makes it one of x32.
            libc::SYS_socket | 0x4000_0000,
            [AF_VSOCK.into(), libc::SOCK_STREAM.into(), 0.into()],
        )),
        #[cfg(target_arch = "x86_64")]
        "vsock-i386" => {
            // `socket` of the 32-bit architecture.
            let arguments = [AF_VSOCK.cast_unsigned(), libc::SOCK_STREAM as u32, 0];
            reached(crate::raw::call_32_bit(359, arguments))
        }
        "io-uring" => reached(call(
            libc::SYS_io_uring_setup,
            [1.into(), Arg::Buffer(&mut [0; 120])],
        )),
        "open" => open(word(0)?, OpenOptions::new().read(true)),
        "open-write" => open(word(0)?, OpenOptions::new().write(true)),
        "read" => read(word(0)?),
        "text" => fs::read(word(0)?)
            .map(|bytes| String::from_utf8_lossy(&bytes).replace('\0', " "))
            .map_err(errno),
        "write" => write(word(0)?, word(1)?),
        "list" => list(word(0)?),
        "link" => fs::read_link(word(0)?)
            .map(|target| target.display().to_string())
            .map_err(errno),
        "device" => device(&path()?, number(1)?, number(2)?),
        "mount" => mount(&path()?, &CString::new(word(1)?).ok()?),
        "status" => status(word(0)?),
        "setuid" => setuid(word(0)?),
        "signal" => signal(number(0)?),
        "signals" => Ok(signals()),
        _ => return on_pid_1(name).or_else(|| kernel::attempt(name).map(reached)),
    })
}

fn reached(outcome: Outcome) -> Attempt {
    outcome.map(|value| value.to_string())
}

fn vsock(kind: i32) -> Outcome {
    call(libc::SYS_socket, [AF_VSOCK.into(), kind.into(), 0.into()])
}

/// To a port of a machine, by the numbers of vsock(7).
fn vsock_connect(cid: i32, port: i32) -> Attempt {
    let socket = vsock(libc::SOCK_STREAM)?;
    let mut address = [0; 16];
    for (place, byte) in address.iter_mut().zip(
        (AF_VSOCK.cast_unsigned() & 0xffff)
            .to_le_bytes()
            .into_iter()
            .chain(port.to_le_bytes())
            .chain(cid.to_le_bytes()),
    ) {
        *place = byte;
    }
    let socket = i64::try_from(socket).unwrap_or(-1);
    let length = i64::try_from(address.len()).unwrap_or_default();
    reached(call(
        libc::SYS_connect,
        [socket.into(), Arg::Bytes(&address), length.into()],
    ))
}

fn open(path: &str, how: &OpenOptions) -> Attempt {
    let opened = how.clone().custom_flags(libc::O_NONBLOCK).open(path);
    opened.map(|_| "opened".to_owned()).map_err(errno)
}

fn read(path: &str) -> Attempt {
    let mut start = [0; 16];
    let count = File::open(path)
        .and_then(|mut file| file.read(&mut start))
        .map_err(errno)?;
    Ok(format!("read {count}"))
}

fn write(path: &str, text: &str) -> Attempt {
    let written = OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|mut file| file.write(text.as_bytes()));
    written.map(|count| format!("wrote {count}")).map_err(errno)
}

fn list(path: &str) -> Attempt {
    let mut names: Vec<_> = fs::read_dir(path)
        .map_err(errno)?
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    Ok(names.join(" "))
}

/// Makes a node of a character device, and opens it.
fn device(path: &CStr, major: i32, minor: i32) -> Attempt {
    let device = libc::makedev(major.cast_unsigned(), minor.cast_unsigned());
    let mode = libc::S_IFCHR | 0o666;
    call(
        libc::SYS_mknod,
        [
            path.into(),
            i64::from(mode).into(),
            device.cast_signed().into(),
        ],
    )?;
    let text = path.to_string_lossy();
    let opened = open(&text, OpenOptions::new().read(true).write(true));
    fs::remove_file(&*text).map_err(errno)?;
    opened
}

fn mount(kind: &CStr, target: &CStr) -> Attempt {
    reached(call(
        libc::SYS_mount,
        [
            c"none".into(),
            target.into(),
            kind.into(),
            0.into(),
            0.into(),
        ],
    ))
}

/// A field of this process's status (proc(5)).
fn status(field: &str) -> Attempt {
    let text = fs::read_to_string("/proc/self/status").map_err(errno)?;
    let found = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name == field).then(|| value.trim().to_owned())
    });
    found.ok_or(Errno::ENOENT)
}

/// Runs a copy of this program that belongs to root and has the set-user-ID bit.
fn setuid(path: &str) -> Attempt {
    let output = Command::new(path).args(["try", "status", "Uid"]).output();
    let output = output.map_err(errno)?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Sends a signal to the init.
fn signal(number: i32) -> Attempt {
    reached(call(libc::SYS_kill, [PID1.into(), number.into()]))
}

/// Sends the init every signal but those that ask it to end, and says which
/// could be sent.
fn signals() -> String {
    let sent: Vec<_> = (1..=64)
        .filter(|number| ![libc::SIGTERM, libc::SIGINT].contains(number))
        .filter(|number| signal(*number).is_ok())
        .map(|number| number.to_string())
        .collect();
    sent.join(" ")
}

/// What can be done to the init by name.
fn on_pid_1(name: &str) -> Option<Attempt> {
    let pid = || Arg::from(PID1);
    Some(reached(match name {
        "ptrace-attach" => ptrace(libc::PTRACE_ATTACH.into()),
        "ptrace-seize" => ptrace(0x4206),
        "read-memory" => memory(libc::SYS_process_vm_readv),
        "write-memory" => memory(libc::SYS_process_vm_writev),
        "take-descriptor" => take_descriptor(),
        "compare" => call(libc::SYS_kcmp, [pid(), pid(), 0.into(), 0.into(), 0.into()]),
        "limit" => {
            // No descriptors at all.
            let limits = [0; 16];
            call(
                libc::SYS_prlimit64,
                [
                    pid(),
                    i64::from(libc::RLIMIT_NOFILE).into(),
                    Arg::Bytes(&limits),
                    0.into(),
                ],
            )
        }
        "priority" => call(
            libc::SYS_setpriority,
            [i64::from(libc::PRIO_PROCESS).into(), pid(), 19.into()],
        ),
        "scheduler" => call(
            libc::SYS_sched_setscheduler,
            [pid(), libc::SCHED_IDLE.into(), Arg::Bytes(&[0; 4])],
        ),
        "affinity" => {
            let first = 1_u64.to_le_bytes();
            call(
                libc::SYS_sched_setaffinity,
                [pid(), 8.into(), Arg::Bytes(&first)],
            )
        }
        "io-priority" => call(libc::SYS_ioprio_set, [1.into(), pid(), (3 << 13).into()]),
        "move-pages" => call(
            libc::SYS_move_pages,
            [pid(), 0.into(), 0.into(), 0.into(), 0.into(), 0.into()],
        ),
        _ => return None,
    }))
}

fn ptrace(request: i64) -> Outcome {
    let outcome = call(
        libc::SYS_ptrace,
        [request.into(), PID1.into(), 0.into(), 0.into()],
    );
    if outcome.is_ok() {
        let _ = call(
            libc::SYS_ptrace,
            [
                i64::from(libc::PTRACE_DETACH).into(),
                PID1.into(),
                0.into(),
                0.into(),
            ],
        );
    }
    outcome
}

/// Eight bytes of the init at an address that every program of its kind maps.
fn memory(number: i64) -> Outcome {
    let mut bytes = [0_u8; 8];
    let vector = |address: u64, length: u64| {
        let mut vector = [0; 16];
        for (place, byte) in vector.iter_mut().zip(
            address
                .to_le_bytes()
                .into_iter()
                .chain(length.to_le_bytes()),
        ) {
            *place = byte;
        }
        vector
    };
    let local = vector(bytes.as_mut_ptr().addr() as u64, 8);
    let remote = vector(0x40_0000, 8);
    let outcome = call(
        number,
        [
            PID1.into(),
            Arg::Bytes(&local),
            1.into(),
            Arg::Bytes(&remote),
            1.into(),
            0.into(),
        ],
    );
    // The process was open to us if only the address was wrong.
    match outcome {
        Err(Errno::EFAULT) => Ok(0),
        other => other,
    }
}

fn take_descriptor() -> Outcome {
    let process = call(libc::SYS_pidfd_open, [PID1.into(), 0.into()])?;
    let process = i64::try_from(process).unwrap_or(-1);
    call(libc::SYS_pidfd_getfd, [process.into(), 0.into(), 0.into()])
}

/// Starts a process that ends once `work` has.
pub(crate) fn child(work: impl FnOnce()) -> Outcome {
    let pid = fork()?;
    if pid == 0 {
        work();
        end();
    }
    Ok(pid)
}
