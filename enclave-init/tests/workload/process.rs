//! What a program does about signals and as PID 1, and what another process of the workload's
//! sees of its surroundings.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicI32, Ordering};
use std::thread::sleep;

use nix::libc;
use nix::sys::signal::{SigHandler, SigSet, Signal, kill, signal};
use nix::sys::signalfd::SignalFd;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpid};

use crate::POLL;

/// The signal that a handler was run for.
static CAUGHT: AtomicI32 = AtomicI32::new(0);

extern "C" fn note(number: libc::c_int) {
    CAUGHT.store(number, Ordering::Relaxed);
}

/// Ends by a fault, as the kernel reports one.
pub(crate) fn fault() -> ! {
    // SAFETY: none; the kernel ends the process.
    unsafe { std::ptr::null_mut::<u8>().write_volatile(0) };
    unreachable!("nothing is mapped there");
}

/// Waits for a signal by a handler.
pub(crate) fn handle(name: &str) {
    let awaited: Signal = name.parse().unwrap();
    // SAFETY: the handler stores a number.
    unsafe { signal(awaited, SigHandler::Handler(note)) }.unwrap();
    println!("handling");
    while CAUGHT.load(Ordering::Relaxed) != awaited as i32 {
        sleep(POLL);
    }
    println!("handled {awaited}");
}

/// Waits for a signal by a descriptor, and blocks it.
pub(crate) fn descriptor(name: &str) {
    let set: SigSet = [name.parse::<Signal>().unwrap()].into_iter().collect();
    set.thread_block().unwrap();
    let signals = SignalFd::new(&set).unwrap();
    println!("watching");
    signals.read_signal().unwrap().unwrap();
    println!("read {name}");
}

/// As small inits for containers do: insists on being PID 1, runs the instruction, hands
/// SIGTERM on to it, reaps, and ends as it does.
pub(crate) fn reign(words: &[&str]) -> ! {
    if getpid() != Pid::from_raw(1) {
        println!("not PID 1");
        std::process::exit(100);
    }
    let set: SigSet = [Signal::SIGTERM, Signal::SIGCHLD].into_iter().collect();
    set.thread_block().unwrap();
    let mut command = Command::new("/bin/workload");
    command.arg(words.join(" "));
    // SAFETY: only a system call is made between fork and exec.
    unsafe { command.pre_exec(|| Ok(SigSet::empty().thread_set_mask()?)) };
    let child = command.spawn().unwrap();
    let child = Pid::from_raw(child.id().cast_signed());
    println!("reigning");
    loop {
        if set.wait().unwrap() == Signal::SIGTERM {
            kill(child, Signal::SIGTERM).unwrap();
        }
        while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            match status {
                WaitStatus::Exited(pid, code) if pid == child => std::process::exit(code),
                WaitStatus::StillAlive => break,
                _ => println!("reaped"),
            }
        }
    }
}

/// Everything that processes of one container have in common.
fn common() -> Vec<String> {
    let mut lines = vec![
        format!("folder {}", std::env::current_dir().unwrap().display()),
        format!(
            "root {:?}",
            fs::metadata("/").map(|root| root.ino()).unwrap()
        ),
        format!("leader {}", nix::unistd::getsid(None).unwrap() == getpid()),
    ];
    let mut variables: Vec<_> = std::env::vars().collect();
    variables.sort();
    lines.extend(
        variables
            .iter()
            .map(|(name, value)| format!("{name}={value}")),
    );
    let names = [
        "Uid:",
        "Gid:",
        "Groups:",
        "Cap",
        "NoNewPrivs:",
        "Seccomp:",
        "Umask:",
        "SigIgn:",
        "SigBlk:",
    ];
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let status = status.lines();
    let same = status.filter(|line| names.iter().any(|name| line.starts_with(name)));
    lines.extend(same.map(str::to_owned));
    for name in ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"] {
        let link = fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        lines.push(link.display().to_string());
    }
    let limits = fs::read_to_string("/proc/self/limits").unwrap();
    lines.extend(limits.lines().map(str::to_owned));
    let descriptors: BTreeSet<_> = fs::read_dir("/proc/self/fd")
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    lines.push(format!("descriptors {descriptors:?}"));
    lines
}

/// Writes it down.
pub(crate) fn note_common(file: &str) {
    fs::write(file, common().join("\n")).unwrap();
}

/// Ends with 1 if it is not as it was written down.
pub(crate) fn compare_common(file: &str) {
    let noted = fs::read_to_string(file).unwrap();
    let own = common().join("\n");
    if let Some((noted, own)) = noted.lines().zip(own.lines()).find(|(a, b)| a != b) {
        println!("it was {noted}, and is {own}");
        std::process::exit(1);
    }
    assert_eq!(noted, own);
}

/// Ends with 0 if the file says `good`, else says what it says and ends with 1.
pub(crate) fn judge(file: &str) {
    match fs::read_to_string(file) {
        Ok(text) if text == "good" => {}
        Ok(text) => {
            println!("{text}\nand more");
            std::process::exit(1);
        }
        Err(_) => {
            println!("no verdict");
            std::process::exit(1);
        }
    }
}

/// Says something of this program, as to systemd; `;` ends a line of it.
pub(crate) fn notify(text: &str) {
    let socket = std::os::unix::net::UnixDatagram::unbound().unwrap();
    let place = std::env::var("NOTIFY_SOCKET").unwrap();
    let text = text.replace(';', "\n");
    socket.send_to(text.as_bytes(), place).unwrap();
}

/// Says that it is alive, as often as is wanted, until there is this file.
pub(crate) fn beat(file: &str) {
    let microseconds = std::env::var("WATCHDOG_USEC").unwrap().parse().unwrap();
    let pause = std::time::Duration::from_micros(microseconds) / 4;
    while fs::metadata(file).is_err() {
        notify("WATCHDOG=1");
        sleep(pause);
    }
    println!("silent");
}

/// Stops every process that appears beside this one, and looks for two texts, whose halves are
/// given, in whatever can be read of it. Says once what it has stopped and found.
pub(crate) fn stalk(words: &[&str]) -> ! {
    let texts = [words[0], words[2]].map(str::to_owned);
    let texts = [
        texts[0].clone() + "-" + words[1],
        texts[1].clone() + "-" + words[3],
    ];
    let own = fs::metadata("/proc/self/exe").unwrap();
    let own = (own.dev(), own.ino());
    let mut said = BTreeSet::new();
    let mut say = |line: String| {
        if said.insert(line.clone()) {
            println!("{line}");
        }
    };
    loop {
        for entry in fs::read_dir("/proc").unwrap() {
            let name = entry.unwrap().file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            if Pid::from_raw(pid) == getpid() {
                continue;
            }
            if kill(Pid::from_raw(pid), Signal::SIGSTOP).is_ok() {
                say("stopped".to_owned());
            }
            // SAFETY: takes numbers.
            let attached = unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, 0, 0) };
            if attached == 0 {
                say("traced".to_owned());
            }
            let found = readable(pid);
            for (text, name) in texts.iter().zip(["bait", "canary"]) {
                let bytes = text.as_bytes();
                if found.iter().any(|part| contains(part, bytes)) {
                    say(format!("found {name}"));
                }
            }
            for folder in ["root", "cwd"] {
                // Where the init has the image's files.
                if fs::metadata(format!("/proc/{pid}/{folder}/application")).is_ok() {
                    say(format!("found the init's {folder}"));
                }
            }
            let program = fs::metadata(format!("/proc/{pid}/exe"));
            if program.is_ok_and(|program| (program.dev(), program.ino()) != own) {
                say("found the init's program".to_owned());
            }
        }
    }
}

fn contains(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|window| window == text)
}

/// The environment, the command line and all memory of a process, as far as it can be read.
fn readable(pid: i32) -> Vec<Vec<u8>> {
    let mut parts: Vec<Vec<u8>> = ["environ", "cmdline"]
        .iter()
        .filter_map(|file| fs::read(format!("/proc/{pid}/{file}")).ok())
        .collect();
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd"));
    for descriptor in descriptors.into_iter().flatten().flatten() {
        // Not what would wait.
        let is_file = fs::metadata(descriptor.path()).is_ok_and(|file| file.is_file());
        parts.extend(is_file.then(|| fs::read(descriptor.path()).ok()).flatten());
    }
    let (Ok(maps), Ok(mut memory)) = (
        fs::read_to_string(format!("/proc/{pid}/maps")),
        fs::File::open(format!("/proc/{pid}/mem")),
    ) else {
        return parts;
    };
    for line in maps.lines().filter(|line| line.contains(" rw")) {
        let range = line.split(' ').next().unwrap();
        let (start, end) = range.split_once('-').unwrap();
        let number = |text| u64::from_str_radix(text, 16).unwrap();
        let mut part = Vec::new();
        if memory.seek(SeekFrom::Start(number(start))).is_ok() {
            let _ = (&mut memory)
                .take(number(end) - number(start))
                .read_to_end(&mut part);
        }
        parts.push(part);
    }
    parts
}
