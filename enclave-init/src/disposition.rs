//! What a signal would do to a main process that is PID 1 of its namespace.
//!
//! The kernel spares such a process from every signal for which it has no handler (signal(7)),
//! and a program that has none would not be stopped by SIGTERM, as it is anywhere else. So the
//! init looks whether the process means to do something about the signal; if it does not, and
//! the default is to end it, the init ends it itself.
//!
//! The kernel decides by the main thread alone whether a signal has no effect, and so does
//! this: by what its process catches and ignores, what that thread blocks, and whether it
//! waits in sigwait(3), where a blocked signal shows as one that is not.
//!
//! The process goes on while it is looked at. A handler that is set just after the last look
//! is not run: an ordinary process would have been ended too, had the signal come then. A
//! handler that is removed in between, as when a shell executes the program that it was
//! started for, leaves a signal without effect, and the process has the rest of the grace.
//! And a process that removes its handler in the handler, to end itself by the same signal,
//! does not end by that, here as in any container.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use nix::fcntl::{OFlag, openat};
use nix::libc::{self, c_int};
use nix::sys::stat::Mode;
use nix::unistd::Pid;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use crate::confinement::Confinement;

/// How often the process is looked at: it is between two waits for its signals for a moment.
const LOOKS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(3);
/// How long a look may take: a process that executes a program cannot be looked at meanwhile,
/// and whoever looks at one that ends may have to free its memory.
const LOOK_TIMEOUT: Duration = Duration::from_secs(1);
/// The longest file of a process that is read, in bytes.
const MAX_FILE: u64 = 16 * 1024;

/// Signals that end no process by default (signal(7)).
const HARMLESS: [c_int; 8] = [
    libc::SIGCHLD,
    libc::SIGCONT,
    libc::SIGURG,
    libc::SIGWINCH,
    libc::SIGSTOP,
    libc::SIGTSTP,
    libc::SIGTTIN,
    libc::SIGTTOU,
];

/// Whether the signal would have ended the process, were it not PID 1.
pub(crate) async fn would_end(confinement: &Arc<Confinement>, pid: Pid, signal: c_int) -> bool {
    // The kernel spares no PID 1 from this one.
    if signal == libc::SIGKILL || HARMLESS.contains(&signal) {
        return false;
    }
    for look in 0..LOOKS {
        if look > 0 {
            sleep(PAUSE).await;
        }
        let confinement = Arc::clone(confinement);
        let looking = spawn_blocking(move || has_no_effect(confinement.proc(), pid, signal));
        // What cannot be found out in time is not known.
        if !matches!(timeout(LOOK_TIMEOUT, looking).await, Ok(Ok(Ok(true)))) {
            return false;
        }
    }
    true
}

/// `proc` is a `/proc` that the process cannot have masked.
fn has_no_effect(proc: BorrowedFd<'_>, pid: Pid, signal: c_int) -> io::Result<bool> {
    // Before and after the rest, so that a wait for signals that begins or ends meanwhile is
    // seen.
    let before = read(proc, &format!("{pid}/syscall"))?;
    let status = read(proc, &format!("{pid}/status"))?;
    let after = read(proc, &format!("{pid}/syscall"))?;
    let waits = [before, after].iter().any(|call| waits_for_signals(call));
    Ok(is_default(&status, signal) && !waits)
}

fn read(proc: BorrowedFd<'_>, path: &str) -> io::Result<String> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    let file = File::from(openat(proc, path, flags, Mode::empty())?);
    let mut bytes = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut bytes)?;
    // A process may have any name.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Whether a process of this `status` neither catches nor ignores nor blocks the signal
/// (proc(5)).
fn is_default(status: &str, signal: c_int) -> bool {
    let Some(bit) = u32::try_from(signal - 1)
        .ok()
        .and_then(|shift| 1_u64.checked_shl(shift))
    else {
        return false;
    };
    ["SigBlk:", "SigIgn:", "SigCgt:"].into_iter().all(|name| {
        let mut lines = status.lines();
        let set = lines.find_map(|line| line.strip_prefix(name));
        set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok())
            .is_some_and(|set| set & bit == 0)
    })
}

/// Whether a thread of this `syscall` (proc(5)) is in `rt_sigtimedwait`.
fn waits_for_signals(call: &str) -> bool {
    let number = call.split_whitespace().next();
    number.and_then(|number| number.parse().ok()) == Some(libc::SYS_rt_sigtimedwait)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use nix::unistd::gettid;

    use super::*;

    #[test]
    fn disposition_is_the_default_if_no_set_has_the_signal() {
        let status = |blocked: &str, ignored: &str, caught: &str| {
            format!("Name:\tx\nSigBlk:\t{blocked}\nSigIgn:\t{ignored}\nSigCgt:\t{caught}\n")
        };
        let (none, term) = ("0000000000000000", "0000000000004000");
        assert!(is_default(&status(none, none, none), libc::SIGTERM));
        for status in [
            status(term, none, none),
            status(none, term, none),
            status(none, none, term),
            // What cannot be read is not decided about.
            status("x", none, none),
            "SigBlk:\t0\n".to_owned(),
            String::new(),
        ] {
            assert!(!is_default(&status, libc::SIGTERM), "{status}");
        }
        assert!(is_default(&status(none, none, term), libc::SIGHUP));
        let last = "8000000000000000";
        assert!(!is_default(&status(none, none, last), 64));
        assert!(is_default(&status(none, none, term), 64));
    }

    #[test]
    fn disposition_is_read_of_a_process_of_any_name() {
        nix::sys::prctl::set_name(c"\xff").unwrap();
        let proc = File::open("/proc").unwrap();
        let status = read(proc.as_fd(), &format!("{}/status", gettid())).unwrap();
        assert!(status.contains("\nSigBlk:"), "{status}");
    }

    #[test]
    fn disposition_of_a_thread_in_sigwait_is_not_known() {
        let number = libc::SYS_rt_sigtimedwait;
        assert!(waits_for_signals(&format!("{number} 0x7ffc 0x0\n")));
        for call in ["running", "", "0 0x3 0x7ffc\n"] {
            assert!(!waits_for_signals(call), "{call}");
        }
    }
}
