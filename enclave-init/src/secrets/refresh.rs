//! Looking for other ciphertexts while the workload runs.

use manifest::ChangeSignal;
use nix::sys::signal::Signal;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::{SUBJECT, Secrets};
use crate::logs::Logs;

impl Secrets {
    /// Looks for other ciphertexts where they are stored, as often as the image says,
    /// until the enclave ends. What a change is to be followed by goes to `signals`.
    pub(crate) fn keep(&self, signals: &mpsc::Sender<Signal>, logs: &Logs) {
        for (index, declared) in self.0.secrets.iter().enumerate() {
            let Some(interval) = declared.config.refresh else {
                continue;
            };
            let (secrets, signals, logs) = (self.clone(), signals.clone(), logs.clone());
            let name = declared.config.name.clone();
            let signal = declared
                .config
                .on_change
                .map(|change| signal(change.signal));
            tokio::spawn(async move {
                let mut failed = 0_u64;
                loop {
                    sleep(interval.as_duration()).await;
                    match secrets.deliver(index).await {
                        Ok(is_changed) => {
                            if failed > 0 {
                                logs.system(format!(
                                    "{SUBJECT}: `{name}` can be refreshed again, after {failed} failed attempts"
                                ));
                            }
                            failed = 0;
                            if !is_changed {
                                continue;
                            }
                            logs.system(format!("{SUBJECT}: `{name}` has another value"));
                            if let Some(signal) = signal {
                                // Nobody takes it when the enclave ends.
                                let _ = signals.send(signal).await;
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
                        }
                    }
                }
            });
        }
    }
}

fn signal(signal: ChangeSignal) -> Signal {
    match signal {
        ChangeSignal::Hangup => Signal::SIGHUP,
        ChangeSignal::Interrupt => Signal::SIGINT,
        ChangeSignal::Terminate => Signal::SIGTERM,
        ChangeSignal::User1 => Signal::SIGUSR1,
        ChangeSignal::User2 => Signal::SIGUSR2,
    }
}
