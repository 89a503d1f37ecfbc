//! Waiting before the start of an enclave that has crashed.

use std::time::Duration;

use enclave_host::state::StateDir;
use log_sinks::losses::LostRecords;
use manifest::EnclaveName;

use super::{Crash, LastEnd, keep_end};
use crate::enclave::{Cause, End};

/// An enclave that is started again the later the more often it has crashed.
#[derive(Debug)]
pub(crate) struct Backoff {
    /// Its name.
    pub(crate) name: EnclaveName,
    /// Where enclaves' folders are.
    pub(crate) state: StateDir,
    /// The longest pause.
    pub(crate) most: Duration,
}

impl Backoff {
    /// How long the start waits because the enclave has crashed.
    pub(crate) fn pause(&self) -> Option<Duration> {
        // One that runs is taken over at once.
        if self.state.is_running(&self.name) {
            return None;
        }
        let pause = LastEnd::read(&self.name)?.pause(self.most);
        (!pause.is_zero()).then_some(pause)
    }

    /// Leaves a trace of a start that has failed.
    pub(crate) async fn failed(&self, reason: String) {
        // One that runs is another agent's.
        if self.state.is_running(&self.name) {
            return;
        }
        let end = End::new(Cause::BootFailed, reason);
        let (crash, lost) = (Some(Crash::BootFailure), LostRecords::default());
        keep_end(&self.name, &end, crash, Duration::ZERO, lost, &[]).await;
    }
}
