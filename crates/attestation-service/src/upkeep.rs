//! What a service does between requests: reload policies, rotate keys.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use attestation_results::KeyRing;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, info, warn};

use crate::appraiser::Appraiser;
use crate::clock;
use crate::policies::PolicySet;
use crate::watch::{Fingerprint, Looks};

/// What a service may be told while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Read the policies again.
    ReloadPolicies,
    /// Make a new signing key.
    RotateKey,
}

/// How often policies and keys are looked at.
const PERIOD: Duration = Duration::from_secs(2);

pub(crate) struct Upkeep {
    appraiser: Arc<Appraiser>,
    folder: PathBuf,
    looks: Looks,
    ring: KeyRing,
}

impl Upkeep {
    pub(crate) fn new(
        appraiser: Arc<Appraiser>,
        folder: PathBuf,
        fingerprint: Fingerprint,
        ring: KeyRing,
    ) -> Self {
        Self {
            appraiser,
            folder,
            looks: Looks::new(fingerprint),
            ring,
        }
    }

    /// Works until it is dropped.
    pub(crate) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let command = tokio::select! {
                _ = ticks.tick() => None,
                Some(command) = commands.recv() => Some(command),
            };
            // The disk is not for the runtime's threads.
            let work = tokio::task::spawn_blocking(move || {
                self.work(command);
                self
            });
            match work.await {
                Ok(upkeep) => self = upkeep,
                Err(error) => {
                    error!(%error, "policies are not reloaded and keys not rotated any more");
                    return;
                }
            }
        }
    }

    fn work(&mut self, command: Option<Command>) {
        if command == Some(Command::ReloadPolicies) {
            self.looks.demand();
        }
        if self.looks.are_to_be_read(&Fingerprint::of(&self.folder)) {
            self.reload();
        }
        if self.looks.never_settle() {
            warn!(
                folder = %self.folder.display(),
                "policies not reloaded, because files in their folder change at every look: those that were in force stay"
            );
        }
        self.keep_keys(command == Some(Command::RotateKey));
    }

    fn reload(&mut self) {
        let Some((read, found)) = PolicySet::read_unchanging(&self.folder) else {
            // The next look sees it change.
            return;
        };
        self.looks.read(found);
        self.appraiser.metrics.reload(read.is_ok());
        match read {
            Ok(policies) => {
                info!(policies = policies.len(), "policies reloaded");
                self.appraiser.policies.set(policies);
            }
            Err(error) => {
                warn!(%error, "policies not reloaded; those that were in force stay");
            }
        }
    }

    fn keep_keys(&mut self, rotate: bool) {
        let now = clock::now_s();
        let result = if rotate {
            self.ring.rotate(now).map(|()| true)
        } else {
            self.ring.maintain(now)
        };
        match result {
            Ok(false) => {}
            Ok(true) => {
                let keys = self.ring.snapshot();
                info!(keys = keys.published(), "signing keys changed");
                self.appraiser.keys.set(keys);
                self.appraiser.metrics.keys_changed();
            }
            Err(error) => error!(%error, "signing keys could not be rotated"),
        }
    }
}
