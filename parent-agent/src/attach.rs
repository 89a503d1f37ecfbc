//! Taking over an enclave whose agent is gone.
//!
//! An enclave that was started with `--keep-for` goes on without its agent,
//! owned by its guard. The next `run` of the same name does not start another:
//! it checks that this one is what it was asked to start ([`Facts::check`]), and
//! goes on where the earlier agent ended ([`History`]). Both are in the file
//! `enclave.json` of the enclave's folder, which every agent writes for the next.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use enclave_host::console::Console;
use enclave_host::guard::{self, Guard, GuardError, Unattached};
use enclave_host::image::Pcrs;
use enclave_host::state::{CLAIM_RETRY, CLAIM_TIMEOUT, StateDir, StateError, Target};
use manifest::{EnclaveName, HostConfig};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::fs;
use tokio::io::AsyncReadExt;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::warn;

use crate::history::History;

/// The version of [`Facts`]. Fields may be added without a new one, if a reader
/// can do without them.
const VERSION: u32 = 1;
const FILE: &str = "enclave.json";
/// The shortest time between two writes of the file: an enclave has its history change
/// as often as it likes.
const WRITE_PACE: Duration = Duration::from_millis(50);
/// The first changes are written at once, so that an agent that is killed just after
/// the boot leaves all of the boot's steps to the next one.
const WRITES_AT_ONCE: u32 = 64;
/// Largest file that is read, in bytes.
const MAX_FILE: u64 = 256 * 1024;

/// Why an enclave can neither be started nor taken over.
#[derive(Debug, Error)]
pub enum AttachError {
    /// Agent and guard, or the agents, do not understand each other.
    #[error(
        "the enclave `{}` was started by another release of parent-agent ({reason}): run that release, or end the enclave with `parent-agent stop {target}` and run this one again", target.name()
    )]
    OtherRelease {
        /// The enclave.
        target: Target,
        /// What differs.
        reason: String,
    },
    /// It is not what was asked for.
    #[error(
        "the enclave `{}` is running with another {differing}: run it as it was started, or end it with `parent-agent stop {target}` first, or choose another --name", target.name()
    )]
    Differs {
        /// The enclave.
        target: Target,
        /// The image, or the options.
        differing: String,
    },
    /// What the earlier agent wrote cannot be read.
    #[error(
        "the enclave `{}` is running, but {FILE} in its folder cannot be read: {source}; end it with `parent-agent stop {target}`", target.name()
    )]
    Unreadable {
        /// The enclave.
        target: Target,
        /// Why.
        source: io::Error,
    },
    /// The enclave's folder cannot be had.
    #[error(transparent)]
    State(#[from] StateError),
    /// There is no guard for it.
    #[error(transparent)]
    Guard(#[from] GuardError),
}

/// A guard with a new folder, or with an enclave that it kept.
pub async fn acquire(
    state: &StateDir,
    name: &EnclaveName,
    console: &Console,
) -> Result<Guard, AttachError> {
    let start = Instant::now();
    loop {
        let claim = state.claim(name).await?;
        if claim.guard_lock().is_some() {
            return Ok(Guard::start(claim, console.clone())?);
        }
        match Guard::attach(claim, console.clone()).await {
            Ok(guard) => return Ok(guard),
            Err(Unattached::Later(_)) if start.elapsed() < CLAIM_TIMEOUT => {
                sleep(CLAIM_RETRY).await;
            }
            Err(Unattached::Later(_)) => return Err(StateError::Running(state.target(name)).into()),
            Err(error @ Unattached::OtherVersion(_)) => {
                return Err(AttachError::OtherRelease {
                    target: state.target(name),
                    reason: error.to_string(),
                });
            }
        }
    }
}

/// What an enclave was started as, and its life since.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Facts {
    version: u32,
    /// What the image measures to.
    pcrs: Pcrs,
    /// What the image asks of the host.
    host: HostConfig,
    /// What else was decided at the start, by the option that decides it.
    options: BTreeMap<String, String>,
    history: History,
}

impl Facts {
    /// An enclave that is about to be started.
    pub fn new(pcrs: Pcrs, host: HostConfig, options: BTreeMap<String, String>) -> Self {
        Self {
            version: VERSION,
            pcrs,
            host,
            options,
            history: History::default(),
        }
    }

    /// What happened so far.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Reads what an earlier agent wrote into the enclave's folder.
    pub async fn read(directory: &Path, target: &Target) -> Result<Self, AttachError> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let unreadable = |source| AttachError::Unreadable {
            target: target.clone(),
            source,
        };
        let mut bytes = Vec::new();
        let file = fs::File::open(directory.join(FILE))
            .await
            .map_err(unreadable)?;
        file.take(MAX_FILE)
            .read_to_end(&mut bytes)
            .await
            .map_err(unreadable)?;
        let Version { version } =
            serde_json::from_slice(&bytes).map_err(|error| unreadable(error.into()))?;
        if version != VERSION {
            return Err(AttachError::OtherRelease {
                target: target.clone(),
                reason: format!("its {FILE} has version {version}, this agent's {VERSION}"),
            });
        }
        serde_json::from_slice(&bytes).map_err(|error| unreadable(error.into()))
    }

    /// Writes the file, whole or not at all.
    pub async fn write(&self, directory: &Path) -> io::Result<()> {
        let (new, path) = (directory.join("enclave.json.new"), directory.join(FILE));
        fs::write(&new, serde_json::to_vec(self)?).await?;
        fs::rename(new, path).await
    }

    /// Writes the file whenever the history changes, until nobody can change it
    /// any more.
    pub async fn keep(mut self, directory: PathBuf, mut history: watch::Receiver<History>) {
        let mut next = Instant::now();
        let mut at_once = WRITES_AT_ONCE;
        while history.changed().await.is_ok() {
            match at_once.checked_sub(1) {
                Some(left) => at_once = left,
                None => sleep_until(next).await,
            }
            next = Instant::now() + WRITE_PACE;
            self.history = history.borrow_and_update().clone();
            if let Err(error) = self.write(&directory).await {
                warn!(%error, "{FILE} cannot be written: the next agent will know less");
            }
        }
    }

    /// Whether an enclave that is `wanted` is the one that runs.
    pub fn check(&self, wanted: &Self, target: &Target) -> Result<(), AttachError> {
        let mut differing = Vec::new();
        if self.pcrs != wanted.pcrs || self.host != wanted.host {
            differing.push("image");
        }
        // An option that only one of two releases knows is passed over.
        for (option, value) in &self.options {
            if wanted
                .options
                .get(option)
                .is_some_and(|other| other != value)
            {
                differing.push(option);
            }
        }
        if differing.is_empty() {
            return Ok(());
        }
        Err(AttachError::Differs {
            target: target.clone(),
            differing: differing.join(", "),
        })
    }
}

/// Has the guard of an enclave without an agent end it.
pub async fn end(state: &StateDir, name: &EnclaveName) -> Result<(), EndError> {
    let start = Instant::now();
    loop {
        let claim = state.claim(name).await.map_err(EndError::State)?;
        if claim.guard_lock().is_some() {
            // It is gone already.
            return Ok(());
        }
        match guard::end(claim).await {
            Err(Unattached::Later(_)) if start.elapsed() < CLAIM_TIMEOUT => {
                sleep(CLAIM_RETRY).await;
            }
            ended => return ended.map_err(EndError::Guard),
        }
    }
}

/// Why an enclave without an agent could not be ended.
#[derive(Debug, Error)]
pub enum EndError {
    /// Its folder cannot be had.
    #[error(transparent)]
    State(StateError),
    /// Its guard does not do it.
    #[error(transparent)]
    Guard(Unattached),
}

#[cfg(test)]
mod tests {
    use measurements::Pcr;
    use serde_json::json;

    use super::*;
    use crate::enclave::{BootStep, LimitsStatus};
    use crate::history::{LifeTotals, Reported};
    use crate::self_check::SelfCheck;
    use crate::traffic::InitPlaces;
    use log_sinks::losses;

    fn target() -> Target {
        let state = StateDir::new(Some("/state".into())).unwrap();
        state.target(&"test".parse().unwrap())
    }

    fn facts(options: &[(&str, &str)]) -> Facts {
        let host = json!({
            "schema": 1, "name": "test", "cpus": 1, "memory_mib": 64,
            "egress": ["a.example:443"], "ingress": [{"port": 1, "to": 2}],
        });
        let options = options
            .iter()
            .map(|&(option, value)| (option.to_owned(), value.to_owned()))
            .collect();
        let pcrs = Pcrs(BTreeMap::from([(0, Pcr::ZERO)]));
        let host = HostConfig::from_json(host.to_string().as_bytes()).unwrap();
        Facts::new(pcrs, host, options)
    }

    #[tokio::test]
    async fn what_one_agent_writes_the_next_one_reads() {
        let folder = tempfile::tempdir().unwrap();
        let facts = facts(&[("--memory-mib", "64")]);
        facts.write(folder.path()).await.unwrap();
        let (sender, receiver) = watch::channel(History::default());
        let history = History {
            boot: Some("00".repeat(16)),
            init_version: Some("1.0.0".to_owned()),
            self_check: Some(SelfCheck::new(
                link::control::CheckOutcome::Passed,
                "",
                "",
                &[7; 100],
            )),
            ready: true,
            restarts: 3,
            workloads: serde_json::from_str(
                r#"[{"name": "web", "state": "running", "detail": "", "restarts": 3}]"#,
            )
            .unwrap(),
            limits: LimitsStatus {
                oom_kills: 1,
                pids_refused: 2,
            },
            lost: losses::Counts::from([(
                "system".to_owned(),
                BTreeMap::from([("ended".to_owned(), 4)]),
            )]),
            missing: 5,
            reported: Reported {
                metrics: LifeTotals {
                    restarts: 2,
                    ..LifeTotals::default()
                },
                ..Reported::default()
            },
            places: InitPlaces::default(),
            kms: None,
            boot_steps: vec![BootStep {
                name: "root".to_owned(),
                at_us: 1,
                took_us: 2,
            }],
        };
        sender.send_replace(history.clone());
        drop(sender);
        facts.clone().keep(folder.path().to_owned(), receiver).await;
        let read = Facts::read(folder.path(), &target()).await.unwrap();
        assert_eq!(read.history(), &history);
        assert!(read.check(&facts, &target()).is_ok());
    }

    #[test]
    fn what_differs_is_named() {
        let running = facts(&[("--memory-mib", "64"), ("--debug", "false"), ("--old", "1")]);
        let same = facts(&[("--memory-mib", "64"), ("--debug", "false"), ("--new", "1")]);
        assert!(running.check(&same, &target()).is_ok());
        let mut other = facts(&[("--memory-mib", "65"), ("--debug", "true")]);
        other.host.egress.clear();
        let error = running.check(&other, &target()).unwrap_err().to_string();
        assert!(
            error.contains("with another image, --debug, --memory-mib: run it")
                && error.contains("`parent-agent stop --name test --state-dir /state`"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn damaged_and_other_versions_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let read = || async {
            let error = Facts::read(folder.path(), &target()).await.unwrap_err();
            error.to_string()
        };
        assert!(read().await.contains("No such file"));
        for text in ["", "{", "{\"version\":1}", "[]"] {
            std::fs::write(folder.path().join(FILE), text).unwrap();
            assert!(read().await.contains("cannot be read"), "{text}");
        }
        std::fs::write(folder.path().join(FILE), "{\"version\":2}").unwrap();
        assert!(read().await.contains("another release"));
    }
}
