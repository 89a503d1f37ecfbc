//! Waiting for every process that has ended: the workload, whose status is
//! kept, and the orphans that PID 1 inherits.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use link::control::ExitStatus;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Processes whose status is kept: the workload, and what runs beside it.
type Expected = Vec<(Pid, watch::Sender<Option<ExitStatus>>)>;

/// Reaps for as long as the runtime runs.
#[derive(Debug, Clone)]
pub(crate) struct Reaper(Arc<Mutex<Expected>>);

/// The end of a process.
#[derive(Debug, Clone)]
pub(crate) struct Ended(watch::Receiver<Option<ExitStatus>>);

impl Ended {
    /// Waits for it; cancellation safe, and may be asked again.
    pub(crate) async fn wait(&mut self) -> ExitStatus {
        if let Ok(status) = self.0.wait_for(Option::is_some).await
            && let Some(status) = *status
        {
            return status;
        }
        // Only a reaper that is replaced or gone forgets a process.
        std::future::pending().await
    }

    /// Whether it has come.
    pub(crate) fn is_over(&self) -> bool {
        self.0.borrow().is_some()
    }
}

impl Reaper {
    pub(crate) fn start() -> io::Result<Self> {
        let mut ended = signal(SignalKind::child())?;
        let expected = Arc::<Mutex<Expected>>::default();
        let reaper = Self(Arc::clone(&expected));
        tokio::spawn(async move {
            loop {
                reap(&mut lock(&expected));
                if ended.recv().await.is_none() {
                    return;
                }
            }
        });
        Ok(reaper)
    }

    /// Starts a process whose status is to be kept. Nothing is reaped
    /// meanwhile, so it cannot be lost.
    pub(crate) fn spawn<T, E>(
        &self,
        start: impl FnOnce() -> Result<(Pid, T), E>,
    ) -> Result<(Pid, Ended, T), E> {
        let mut expected = lock(&self.0);
        let (pid, rest) = start()?;
        let (sender, receiver) = watch::channel(None);
        expected.push((pid, sender));
        Ok((pid, Ended(receiver), rest))
    }

    /// Kills a process that [`spawn`](Self::spawn) has started. Its number is not another's:
    /// nothing is reaped meanwhile.
    pub(crate) fn kill(&self, pid: Pid) {
        if lock(&self.0).iter().any(|(expected, _)| *expected == pid) {
            // It may have ended by itself.
            let _ = kill(pid, Signal::SIGKILL);
        }
    }
}

fn lock(expected: &Mutex<Expected>) -> MutexGuard<'_, Expected> {
    expected.lock().unwrap_or_else(PoisonError::into_inner)
}

fn reap(expected: &mut Expected) {
    while let Some((pid, status)) = next() {
        if let Some(index) = expected.iter().position(|(expected, _)| *expected == pid) {
            expected.swap_remove(index).1.send_replace(Some(status));
        }
    }
}

/// Takes the next process that has ended. Not `nix`'s `waitpid`: it fails for a
/// process that a real-time signal ended, whose status is lost then.
fn next() -> Option<(Pid, ExitStatus)> {
    loop {
        let mut status = 0;
        // SAFETY: `waitpid` writes one `int` to the address of one.
        let pid = unsafe { nix::libc::waitpid(-1, &raw mut status, nix::libc::WNOHANG) };
        if pid > 0 {
            let status = std::process::ExitStatus::from_raw(status);
            let status = match (status.code(), status.signal()) {
                (Some(code), _) => ExitStatus::Code(code),
                (None, Some(signal)) => ExitStatus::Signal(signal),
                // Stopped and continued processes are not asked for.
                (None, None) => continue,
            };
            return Some((Pid::from_raw(pid), status));
        }
        if pid == 0 || Errno::last() != Errno::EINTR {
            return None;
        }
    }
}
