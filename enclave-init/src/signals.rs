//! The signals that PID 1 receives. SIGTERM and SIGINT ask for a shutdown;
//! SIGHUP, SIGUSR1 and SIGUSR2 are the workload's and are passed on to its
//! main process. All others keep the meaning that the kernel gives them for a
//! PID 1: none.

use std::io;

use nix::sys::signal::Signal;
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

/// Signals that are waited for.
#[derive(Debug)]
pub(crate) struct Signals {
    terminate: Stream,
    interrupt: Stream,
    hang_up: Stream,
    user1: Stream,
    user2: Stream,
}

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// To end.
    Shutdown,
    /// To hand this one on to the workload.
    Forward(Signal),
}

impl Signals {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
        })
    }

    /// The next one. Cancellation safe.
    pub(crate) async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::Shutdown,
            _ = self.interrupt.recv() => Asked::Shutdown,
            _ = self.hang_up.recv() => Asked::Forward(Signal::SIGHUP),
            _ = self.user1.recv() => Asked::Forward(Signal::SIGUSR1),
            _ = self.user2.recv() => Asked::Forward(Signal::SIGUSR2),
        }
    }

    /// Waits for one that asks for a shutdown. Cancellation safe.
    pub(crate) async fn shutdown(&mut self) {
        while self.next().await != Asked::Shutdown {}
    }
}
