//! The last words of an init that panics: to standard error, and, where a control
//! connection is open, to the agent, which has no other way to tell a panic from
//! a machine that was taken away.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::panic::PanicHookInfo;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::sleep;
use std::time::Duration;

use link::control::{EndCause, FromInit, Losses};
use link::frame::{self, MAX_CONTROL};
use link::{EndCode, Text};

use crate::logs::Logs;

/// The control connection's socket, a second time, for as long as it is open.
/// Whatever stream it is, this type's calls are those of any socket.
static CONNECTION: Mutex<Option<UnixStream>> = Mutex::new(None);
/// Whether a part of a frame may be on the connection: nothing can follow it.
static IS_IN_FRAME: AtomicBool = AtomicBool::new(false);
static LOGS: OnceLock<Logs> = OnceLock::new();

/// How long the agent may take to read the message and to close the connection.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);
const POLL: Duration = Duration::from_millis(10);

/// Has a panic end the process with last words, by `end`.
pub(crate) fn install(end: fn()) {
    std::panic::set_hook(Box::new(move |info| {
        let text = describe(info);
        // Not `eprintln!`, which panics when whoever read the console is gone.
        let _ = writeln!(io::stderr(), "enclave-init: {text}");
        tell(text);
        end();
        std::process::abort();
    }));
}

/// Has a panic count the records that are lost with it.
pub(crate) fn count_losses_of(logs: &Logs) {
    // There is one boot, and so one log, in a process.
    let _ = LOGS.set(logs.clone());
}

/// A control connection by which a panic is told, until this is dropped.
pub(crate) struct Line(());

impl Line {
    pub(crate) fn open(connection: impl AsFd) -> Self {
        IS_IN_FRAME.store(false, Ordering::SeqCst);
        // Without it a panic is told on the console alone.
        *this_connection() = connection
            .as_fd()
            .try_clone_to_owned()
            .ok()
            .map(UnixStream::from);
        Self(())
    }

    /// A frame is about to be written. One that was not finished leaves the
    /// connection unusable.
    #[expect(clippy::unused_self, reason = "it stands for the open connection")]
    pub(crate) fn begin_frame(&self) {
        IS_IN_FRAME.store(true, Ordering::SeqCst);
    }

    #[expect(clippy::unused_self, reason = "it stands for the open connection")]
    pub(crate) fn end_frame(&self) {
        IS_IN_FRAME.store(false, Ordering::SeqCst);
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        // The connection ends only when both of its sockets are closed.
        this_connection().take();
    }
}

fn this_connection() -> MutexGuard<'static, Option<UnixStream>> {
    CONNECTION.lock().unwrap_or_else(PoisonError::into_inner)
}

fn describe(info: &PanicHookInfo<'_>) -> String {
    let place = info.location().map_or_else(String::new, |place| {
        format!(" at {}:{}", place.file(), place.line())
    });
    let reason = info.payload_as_str().unwrap_or("for an unknown reason");
    format!("panicked{place}: {reason}")
}

/// Tells the agent, as far as that is possible at once. Nothing here waits for a
/// lock, which the thread that panics may hold itself.
fn tell(text: String) {
    let Some(mut connection) = CONNECTION.try_lock().ok().and_then(|mut line| line.take()) else {
        return;
    };
    if IS_IN_FRAME.load(Ordering::SeqCst) {
        return;
    }
    let (losses, numbered) = LOGS
        .get()
        .and_then(Logs::try_abandon)
        .unwrap_or_else(|| (Losses::default(), Vec::new()));
    let message = FromInit::Ending {
        cause: EndCause::InitFailed,
        detail: Text::new(text),
        code: EndCode::text(Some(EndCode::InitPanic)),
        losses,
        numbered,
        workload: None,
    };
    let Ok(bytes) = frame::encode(&message, MAX_CONTROL) else {
        return;
    };
    // The socket does not block: what it does not take at once is not said.
    if !matches!(connection.write(&bytes), Ok(written) if written == bytes.len()) {
        return;
    }
    let _ = connection.shutdown(Shutdown::Write);
    // The kernel sends while this waits; the agent closes once it has read.
    let mut waited = Duration::ZERO;
    let mut rest = [0; 4096];
    while waited < CLOSE_TIMEOUT {
        match connection.read(&mut rest) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                #[expect(
                    clippy::disallowed_methods,
                    reason = "the process ends here, and there may be no runtime any more"
                )]
                sleep(POLL);
                waited += POLL;
            }
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::{FromRawFd, OwnedFd, RawFd};
    use std::process::{Command, Stdio};

    use super::*;

    /// The descriptor of the child's end of the connection.
    const VARIABLE: &str = "ENCLAVE_TEST_PANIC";

    #[expect(
        clippy::disallowed_methods,
        reason = "a panic hook has no `main` to return to"
    )]
    fn end() {
        std::process::exit(7);
    }

    /// Not a test: the process that panics, in an environment of its own.
    #[test]
    fn child() {
        let Ok(what) = std::env::var(VARIABLE) else {
            return;
        };
        // The parent gives the connection as standard input.
        let input: RawFd = 0;
        // SAFETY: standard input is open, and nothing else in this process uses it.
        let connection = UnixStream::from(unsafe { OwnedFd::from_raw_fd(input) });
        connection.set_nonblocking(true).unwrap();
        install(end);
        let line = Line::open(&connection);
        match what.as_str() {
            "in-frame" => line.begin_frame(),
            "closed" => drop(line),
            _ => {}
        }
        panic!("the reason");
    }

    fn panics(what: &str) -> (Vec<u8>, String) {
        let (mut near, far) = UnixStream::pair().unwrap();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "panic::tests::child", "--nocapture"])
            .env(VARIABLE, what)
            .stdin(Stdio::from(OwnedFd::from(far)))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = Vec::new();
        near.read_to_end(&mut said).unwrap();
        // The child waits for it before it ends.
        drop(near);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(7));
        (said, String::from_utf8(output.stderr).unwrap())
    }

    #[test]
    fn panic_is_told_to_the_agent_and_the_console() {
        let (said, console) = panics("told");
        assert!(console.contains("enclave-init: panicked at "), "{console}");
        let Ok(FromInit::Ending {
            cause: EndCause::InitFailed,
            detail,
            code,
            ..
        }) = frame::decode(said.get(4..).unwrap_or_default())
        else {
            panic!("{said:?}");
        };
        assert_eq!(&*code, "init.panic");
        assert!(detail.contains("panic.rs:"), "{detail:?}");
        assert!(detail.ends_with(": the reason"), "{detail:?}");
    }

    #[test]
    fn panic_says_nothing_where_it_would_not_be_understood() {
        for what in ["in-frame", "closed"] {
            let (said, console) = panics(what);
            assert_eq!(said, b"", "{what}");
            assert!(console.contains("the reason"), "{console}");
        }
    }
}
