//! What comes from outside while workloads run.

use manifest::OnChange;
use nix::sys::signal::Signal;
use tokio::sync::mpsc;

use crate::control::Shutdown;
use crate::signals::{Asked, Signals};

/// What comes from outside: signals, and the agent's shutdown.
pub(crate) struct Requests {
    signals: Signals,
    shutdown: mpsc::Receiver<Shutdown>,
    /// What follows changes of secrets.
    changes: mpsc::Receiver<OnChange>,
}

pub(super) enum Request {
    Shutdown(Shutdown),
    Forward(Signal),
    Follow(OnChange),
}

impl Requests {
    pub(crate) fn new(
        signals: Signals,
        shutdown: mpsc::Receiver<Shutdown>,
        changes: mpsc::Receiver<OnChange>,
    ) -> Self {
        Self {
            signals,
            shutdown,
            changes,
        }
    }

    /// The next one. Cancellation safe.
    pub(super) async fn next(&mut self) -> Request {
        tokio::select! {
            Some(shutdown) = self.shutdown.recv() => Request::Shutdown(shutdown),
            Some(change) = self.changes.recv() => Request::Follow(change),
            asked = self.signals.next() => match asked {
                Asked::Shutdown => Request::Shutdown(Shutdown { grace: None }),
                Asked::Forward(signal) => Request::Forward(signal),
            },
        }
    }

    /// Waits for a shutdown. Cancellation safe.
    pub(crate) async fn shutdown(&mut self) -> Shutdown {
        loop {
            if let Request::Shutdown(shutdown) = self.next().await {
                return shutdown;
            }
        }
    }
}
