//! Secrets that the image declares: opened before the workload starts, delivered as files
//! and environment variables, and looked for anew while it runs.
//!
//! A value is in the init's memory while it is opened, and in the file that the workload
//! reads; the init keeps it longer only where it is to be an environment variable, which
//! every start of the workload needs. No message holds one.

mod failure;
mod folder;
mod opening;
mod refresh;

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use manifest::{MeasuredConfig, OnFailure, Secret, User};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};
use zeroize::Zeroizing;

use self::failure::Failure;
use self::opening::{Opened, Origins};
use crate::aws::Client;
use crate::kms::Kms;
use crate::logs::Logs;
use crate::mounts::SECRETS_FOLDER;

/// How long it may take to open all secrets before the workload starts: with the wait for
/// credentials less than the 60 s that an agent allows a boot to be silent.
const OPENING_TIMEOUT: Duration = Duration::from_secs(45);
/// Secrets that are opened at the same time, before the workload starts.
const AT_A_TIME: usize = 8;
/// The pause before a call is made again; it is doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The longest of these pauses.
const LONGEST_PAUSE: Duration = Duration::from_secs(8);
/// What the logs say of secrets begins so.
const SUBJECT: &str = "secrets";
/// The largest value in bytes: what KMS decrypts at most.
const MAX_VALUE: usize = 4096;

/// The image's secrets; clones are the same ones.
#[derive(Clone)]
pub(crate) struct Secrets(Arc<Shared>);

struct Shared {
    origins: Origins,
    /// Whose the files are; in a simulation they are the init's, who is the workload's
    /// user by another name.
    owner: Option<User>,
    secrets: Vec<Declared>,
}

struct Declared {
    config: Secret,
    held: Mutex<Held>,
}

/// What is known of a secret.
#[derive(Default)]
struct Held {
    /// What was opened last.
    ciphertext: Option<Vec<u8>>,
    /// The value, if it is to be an environment variable.
    value: Option<Zeroizing<Vec<u8>>>,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({})", self.0.secrets.len())
    }
}

impl Secrets {
    /// The secrets of the image, if it declares any; nothing is opened yet.
    pub(crate) fn new(
        config: &MeasuredConfig,
        kms: &Kms,
        client: &Client,
        simulated: bool,
    ) -> Option<Self> {
        if config.secrets.is_empty() {
            return None;
        }
        let secrets = config.secrets.iter().map(|secret| Declared {
            config: secret.clone(),
            held: Mutex::default(),
        });
        let region = config.kms.as_ref().map(|kms| &*kms.region);
        Some(Self(Arc::new(Shared {
            origins: Origins::new(
                kms.clone(),
                client.clone(),
                region.unwrap_or_default(),
                config.network.aws_fips,
            ),
            owner: (!simulated).then_some(config.workload.user),
            secrets: secrets.collect(),
        })))
    }

    /// Opens and delivers all of them, within a time. What is returned is said of those
    /// without which the workload is started; the error is about one without which it is
    /// not. Cancellation safe.
    pub(crate) async fn open(&self) -> Result<Vec<String>, String> {
        let deadline = Instant::now() + OPENING_TIMEOUT;
        let places = Arc::new(Semaphore::new(AT_A_TIME));
        let mut opening = JoinSet::new();
        for index in 0..self.0.secrets.len() {
            let (secrets, places) = (self.clone(), Arc::clone(&places));
            opening.spawn(async move {
                let _place = places.acquire_owned().await;
                (index, secrets.open_until(index, deadline).await)
            });
        }
        let mut missing = Vec::new();
        while let Some(opened) = opening.join_next().await {
            // A task that panics ends the init.
            let Ok((index, Err(reason))) = opened else {
                continue;
            };
            let Some(Declared { config, .. }) = self.0.secrets.get(index) else {
                continue;
            };
            let text = format!("the secret `{}`: {reason}", config.name);
            match config.on_failure {
                OnFailure::Stop => return Err(text),
                OnFailure::Continue => {
                    missing.push(format!("the workload is started without {text}"));
                }
            }
        }
        missing.sort();
        Ok(missing)
    }

    /// The environment variables that the workload is started with.
    pub(crate) fn variables(&self) -> impl Iterator<Item = (&str, OsString)> {
        self.0.secrets.iter().filter_map(|declared| {
            let name = declared.config.env.as_deref()?;
            // The standard library's command keeps a copy until the workload is started.
            let value = declared.held().value.as_ref()?.to_vec();
            Some((name, OsString::from_vec(value)))
        })
    }

    /// Logs how many were delivered, and why the others were not.
    pub(crate) fn report(&self, missing: &[String], logs: &Logs) {
        let all = self.0.secrets.len();
        let delivered = all.saturating_sub(missing.len());
        logs.system(format!("{SUBJECT}: {delivered} of {all} delivered"));
        for missing in missing {
            logs.error(format!("{SUBJECT}: {missing}"));
        }
    }

    /// Opens and delivers one, and tries again for as long as that may help.
    async fn open_until(&self, index: usize, deadline: Instant) -> Result<(), String> {
        let mut pause = FIRST_PAUSE;
        let mut attempts = 0_u32;
        let mut last: Option<Failure> = None;
        loop {
            attempts = attempts.saturating_add(1);
            let failure = match timeout_at(deadline, self.deliver(index)).await {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(failure)) if !failure.is_transient() => return Err(failure.explain()),
                Ok(Err(failure)) => failure,
                Err(_) => last.unwrap_or(Failure::TimedOut(OPENING_TIMEOUT)),
            };
            if Instant::now() + pause >= deadline {
                return Err(format!("{} ({attempts} attempts)", failure.explain()));
            }
            last = Some(failure);
            sleep(pause).await;
            pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
        }
    }

    /// Opens one and delivers it, unless what is stored was opened before; true if it is
    /// another value.
    async fn deliver(&self, index: usize) -> Result<bool, Failure> {
        let Some(declared) = self.0.secrets.get(index) else {
            return Ok(false);
        };
        let known = declared.held().ciphertext.clone();
        let origin = &declared.config.origin;
        let Some(Opened { ciphertext, value }) =
            self.0.origins.open(origin, known.as_deref()).await?
        else {
            return Ok(false);
        };
        if value.len() > MAX_VALUE {
            return Err(Failure::TooLarge(value.len()));
        }
        if declared.config.env.is_some() && value.contains(&0) {
            return Err(Failure::ZeroByte);
        }
        if let Some(file) = &declared.config.file {
            folder::write(Path::new(SECRETS_FOLDER), file, self.0.owner, &value)
                .map_err(|error| Failure::Write(error.to_string()))?;
        }
        let mut held = declared.held();
        held.ciphertext = Some(ciphertext);
        held.value = declared.config.env.is_some().then_some(value);
        Ok(true)
    }
}

impl Declared {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
