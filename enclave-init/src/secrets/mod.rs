//! Secrets that the image declares: opened by KMS before the workload starts, or sealed to
//! this boot by somebody who has verified it; delivered as files, environment variables and
//! by the local API; and looked for anew while the workload runs.
//!
//! A value is in the init's memory while it is opened, and in the file that the workload
//! reads; the init keeps it longer only where it is to be an environment variable, which
//! every start of the workload needs, or is asked for by the API. No message holds one.

mod failure;
mod folder;
mod opening;
mod refresh;
mod sealing;

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use link::control::SecretCounts;
use manifest::{EnclaveName, MeasuredConfig, OnFailure, Sealed, Secret, SecretOrigin, User};
use sealed_secret::PublicKey;
use thiserror::Error;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use zeroize::Zeroizing;

use self::failure::Failure;
use self::opening::{Opened, Origins};
pub(crate) use self::sealing::PutError;
use self::sealing::Sealing;
use crate::aws::{Client, Patience};
use crate::error::InitError;
use crate::kms::Kms;
use crate::logs::Logs;
use crate::mounts::SECRETS_FOLDER;

/// How long KMS may take to open all of its secrets before the workload starts. The agent
/// hears the init's health meanwhile, so that its patience with the boot does not end.
const OPENING_TIMEOUT: Duration = Duration::from_secs(45);
/// Secrets that KMS opens at the same time, before the workload starts.
const AT_A_TIME: usize = 8;
/// The longest pause before a call is made again.
const LONGEST_PAUSE: Duration = Duration::from_secs(8);
/// What the logs say of secrets begins so.
const SUBJECT: &str = "secrets";
/// The largest value of KMS's in bytes: what it decrypts at most.
const MAX_KMS_VALUE: usize = 4096;
/// The largest value of an environment variable in bytes. All of them, with the image's,
/// have to fit into what Linux gives a new program: a quarter of its stack.
const MAX_VARIABLE: usize = 8 * 1024;

/// A value that is kept. It is overwritten before its memory is given back.
pub(crate) type Value = Arc<Zeroizing<Vec<u8>>>;

/// The image's secrets; clones are the same ones.
#[derive(Clone)]
pub(crate) struct Secrets(Arc<Shared>);

struct Shared {
    /// What has KMS open secrets, if any are KMS's.
    origins: Option<Origins>,
    /// What opens those that are sealed, if any are.
    sealing: Option<Sealing>,
    /// Whose the files are; in a simulation of one user they are the init's, who is the
    /// workload's user by another name.
    owner: Option<User>,
    secrets: Vec<Declared>,
    failed_refreshes: AtomicU64,
}

struct Declared {
    config: Secret,
    held: watch::Sender<Held>,
}

/// What is known of a secret.
#[derive(Default)]
struct Held {
    /// The ciphertext that was opened last, if it is KMS's.
    ciphertext: Option<Vec<u8>>,
    /// Whether the workload has it, or will have it when it starts.
    is_delivered: bool,
    /// The value, where it is needed again.
    value: Option<Value>,
}

/// Why the API has no secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum Missing {
    #[error("the image declares no secret of that name in [[secrets]]")]
    Undeclared,
    #[error("the image does not have the API answer this secret: add `api = true` to it")]
    NotByApi,
    #[error("nobody has put this secret yet: `attest seal` seals it to this boot")]
    NotPut,
    #[error("this secret could not be opened; the enclave's log says why")]
    NotOpened,
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
        kms: Option<(&Kms, &Client)>,
        one_user: bool,
    ) -> Result<Option<Self>, InitError> {
        if config.secrets.is_empty() {
            return Ok(None);
        }
        let secrets = config.secrets.iter().map(|secret| Declared {
            config: secret.clone(),
            held: watch::Sender::default(),
        });
        let region = config.kms.as_ref().map(|kms| &*kms.region);
        let fips = config.network.aws_fips;
        Ok(Some(Self(Arc::new(Shared {
            origins: kms.map(|(kms, client)| {
                let region = region.unwrap_or_default();
                Origins::new(kms.clone(), client.clone(), region, fips)
            }),
            sealing: Sealing::new(&config.secrets)?,
            owner: config
                .workloads
                .first()
                .filter(|_| !one_user)
                .map(|workload| workload.user),
            secrets: secrets.collect(),
            failed_refreshes: AtomicU64::default(),
        }))))
    }

    /// The key that documents for sealing carry, if secrets can be sealed.
    pub(crate) fn sealing_key(&self) -> Option<PublicKey> {
        self.0.sealing.as_ref().map(Sealing::public_key)
    }

    /// Opens and delivers those that the workload's start waits for, each within its time.
    /// What is returned is said of those without which the workload is started; the error
    /// is about one without which it is not. Calls `waits` with what it waits for, when
    /// that changes, and with nothing in the end. Cancellation safe.
    pub(crate) async fn open(&self, waits: impl Fn(String)) -> Result<Vec<String>, String> {
        let patience = Patience {
            deadline: Instant::now() + OPENING_TIMEOUT,
            longest_pause: LONGEST_PAUSE,
        };
        let places = Arc::new(Semaphore::new(AT_A_TIME));
        let mut opening = JoinSet::new();
        for (index, declared) in self.0.secrets.iter().enumerate() {
            match declared.config.origin {
                SecretOrigin::Kms(_) => {
                    let (secrets, places) = (self.clone(), Arc::clone(&places));
                    opening.spawn(async move {
                        let _place = places.acquire_owned().await;
                        (index, secrets.open_until(index, patience).await)
                    });
                }
                SecretOrigin::Sealed(Sealed {
                    wait: Some(wait), ..
                }) => {
                    let mut held = declared.held.subscribe();
                    opening.spawn(async move {
                        let put = held.wait_for(|held| held.is_delivered);
                        let put = timeout(wait.as_duration(), put).await;
                        let put = put.map(drop).map_err(|_| {
                            format!(
                                "nobody put it within {wait}; seal it to this boot with `attest seal --send` or `enclavectl secret put`, or write a longer `wait`"
                            )
                        });
                        (index, put)
                    });
                }
                SecretOrigin::Sealed(Sealed { wait: None, .. }) => {}
            }
        }
        let mut missing = Vec::new();
        let mut given_up = Vec::new();
        let mut told = String::new();
        loop {
            let awaited = self.awaited(&given_up);
            if awaited != told {
                told.clone_from(&awaited);
                waits(awaited);
            }
            let Some(opened) = opening.join_next().await else {
                break;
            };
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
                    given_up.push(&config.name);
                    missing.push(format!("the workload is started without {text}"));
                }
            }
        }
        missing.sort();
        Ok(missing)
    }

    /// What somebody has to put before the workload starts, for people; empty if nothing.
    fn awaited(&self, given_up: &[&EnclaveName]) -> String {
        let names = self.0.secrets.iter().filter_map(|declared| {
            let Declared { config, held } = declared;
            let is_awaited = matches!(
                config.origin,
                SecretOrigin::Sealed(Sealed { wait: Some(_), .. })
            ) && !held.borrow().is_delivered
                && !given_up.contains(&&config.name);
            is_awaited.then(|| format!("`{}`", config.name))
        });
        let names: Vec<_> = names.collect();
        match &*names {
            [] => String::new(),
            [name] => format!(
                "waits for the sealed secret {name}: seal it to this boot with `attest seal --send` or `enclavectl secret put`"
            ),
            _ => format!(
                "waits for the sealed secrets {}: seal each to this boot with `attest seal --send` or `enclavectl secret put`",
                names.join(", ")
            ),
        }
    }

    /// The environment variables that the workload is started with.
    pub(crate) fn variables(&self) -> impl Iterator<Item = (&str, OsString)> {
        self.0.secrets.iter().filter_map(|declared| {
            let name = declared.config.env.as_deref()?;
            // The standard library's command keeps a copy until the workload is started.
            let value = declared.held.borrow().value.as_ref()?.to_vec();
            Some((name, OsString::from_vec(value)))
        })
    }

    /// A secret for the API, for which it waits at most so long.
    pub(crate) async fn get(&self, name: &str, wait: Duration) -> Result<Value, Missing> {
        let mut secrets = self.0.secrets.iter();
        let declared = secrets
            .find(|declared| declared.config.name.as_str() == name)
            .ok_or(Missing::Undeclared)?;
        if !declared.config.api {
            return Err(Missing::NotByApi);
        }
        let mut held = declared.held.subscribe();
        // Also with no time to wait it looks once.
        let found = timeout(wait, held.wait_for(|held| held.is_delivered)).await;
        let value = match found {
            Ok(Ok(held)) => held.value.clone(),
            _ => None,
        };
        value.ok_or(match declared.config.origin {
            SecretOrigin::Sealed(_) => Missing::NotPut,
            SecretOrigin::Kms(_) => Missing::NotOpened,
        })
    }

    /// What has become of them.
    pub(crate) fn counts(&self) -> SecretCounts {
        let Shared {
            secrets,
            failed_refreshes,
            ..
        } = &*self.0;
        let delivered = secrets
            .iter()
            .filter(|declared| declared.held.borrow().is_delivered);
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        SecretCounts {
            declared: count(secrets.len()),
            delivered: count(delivered.count()),
            failed_refreshes: failed_refreshes.load(Ordering::Relaxed),
        }
    }

    /// Logs how many were delivered, and why the others were not.
    pub(crate) fn report(&self, missing: &[String], logs: &Logs) {
        let SecretCounts {
            declared,
            delivered,
            ..
        } = self.counts();
        logs.system(format!("{SUBJECT}: {delivered} of {declared} delivered"));
        for missing in missing {
            logs.error(format!("{SUBJECT}: {missing}"));
        }
    }

    /// Opens and delivers one, and tries again for as long as that may help.
    async fn open_until(&self, index: usize, patience: Patience) -> Result<(), String> {
        let timed_out = Failure::TimedOut(OPENING_TIMEOUT);
        let opened = patience
            .attempt(timed_out, Failure::is_transient, || self.refresh(index))
            .await;
        match opened {
            Ok(_) => Ok(()),
            Err((failure, attempts)) if failure.is_transient() => {
                Err(format!("{} ({attempts} attempts)", failure.explain()))
            }
            Err((failure, _)) => Err(failure.explain()),
        }
    }

    /// Has KMS open one and delivers it, unless what is stored was opened before; true if
    /// it is another value.
    async fn refresh(&self, index: usize) -> Result<bool, Failure> {
        let (Some(declared), Some(origins)) = (self.0.secrets.get(index), &self.0.origins) else {
            return Ok(false);
        };
        let SecretOrigin::Kms(encrypted) = &declared.config.origin else {
            return Ok(false);
        };
        let known = declared.held.borrow().ciphertext.clone();
        let Some(Opened { ciphertext, value }) = origins.open(encrypted, known.as_deref()).await?
        else {
            return Ok(false);
        };
        if value.len() > MAX_KMS_VALUE {
            return Err(Failure::TooLarge(value.len(), MAX_KMS_VALUE));
        }
        self.deliver(declared, value, Some(ciphertext))?;
        Ok(true)
    }

    /// Delivers a value, in place of the one before if there is one.
    fn deliver(
        &self,
        declared: &Declared,
        value: Zeroizing<Vec<u8>>,
        ciphertext: Option<Vec<u8>>,
    ) -> Result<(), Failure> {
        let Declared { config, held } = declared;
        if config.env.is_some() {
            if value.contains(&0) {
                return Err(Failure::ZeroByte);
            }
            if value.len() > MAX_VARIABLE {
                return Err(Failure::TooLarge(value.len(), MAX_VARIABLE));
            }
        }
        if let Some(file) = &config.file {
            folder::write(Path::new(SECRETS_FOLDER), file, self.0.owner, &value)
                .map_err(|error| Failure::Write(error.to_string()))?;
        }
        let is_kept = config.env.is_some() || config.api;
        held.send_modify(|held| {
            held.ciphertext = ciphertext;
            held.value = is_kept.then(|| Arc::new(value));
            held.is_delivered = true;
        });
        Ok(())
    }
}
