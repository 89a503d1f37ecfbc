//! Values that come while the workload runs: of other ciphertexts, which are looked for,
//! and of secrets that are put late.

use std::sync::atomic::Ordering;
use std::time::Duration;

use manifest::{OnChange, SecretOrigin};
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::{SUBJECT, Secrets};
use crate::logs::Logs;

impl Secrets {
    /// Looks for other ciphertexts where they are stored, as often as the image says,
    /// until the enclave ends. What a change is to be followed by goes to `changes`.
    pub(crate) fn keep(&self, changes: &mpsc::Sender<OnChange>, logs: &Logs) {
        for (index, declared) in self.0.secrets.iter().enumerate() {
            let config = &declared.config;
            let follow = Follow {
                change: config.on_change.clone(),
                changes: changes.clone(),
            };
            if let Some(interval) = config.refresh {
                let (secrets, logs) = (self.clone(), logs.clone());
                let interval = interval.as_duration();
                tokio::spawn(secrets.refresh_every(interval, index, follow, logs));
            } else if matches!(config.origin, SecretOrigin::Sealed(_))
                && follow.change.is_some()
                && !declared.held.borrow().is_delivered
            {
                let mut held = declared.held.subscribe();
                tokio::spawn(async move {
                    if held.wait_for(|held| held.is_delivered).await.is_ok() {
                        follow.change().await;
                    }
                });
            }
        }
    }

    async fn refresh_every(self, interval: Duration, index: usize, follow: Follow, logs: Logs) {
        let Some(declared) = self.0.secrets.get(index) else {
            return;
        };
        let name = &declared.config.name;
        let mut failed = 0_u64;
        loop {
            sleep(interval).await;
            match self.refresh(index).await {
                Ok(is_changed) => {
                    if failed > 0 {
                        logs.system(format!(
                            "{SUBJECT}: `{name}` can be refreshed again, after {failed} failed attempts"
                        ));
                    }
                    failed = 0;
                    if is_changed {
                        logs.system(format!("{SUBJECT}: `{name}` has another value"));
                        follow.change().await;
                    }
                }
                Err(failure) => {
                    if failed == 0 {
                        logs.error(format!(
                            "{SUBJECT}: `{name}` cannot be refreshed and keeps its value: {}",
                            failure.explain()
                        ));
                    }
                    failed = failed.saturating_add(1);
                    self.0.failed_refreshes.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }
}

/// What follows a change of one secret.
struct Follow {
    change: Option<OnChange>,
    changes: mpsc::Sender<OnChange>,
}

impl Follow {
    async fn change(&self) {
        if let Some(change) = &self.change {
            // Nobody takes it when the enclave ends.
            let _ = self.changes.send(change.clone()).await;
        }
    }
}
