//! The keys that the enclaves of a family share: derived from one seed, which is in the
//! init's memory and which the init gives to nobody but the inits of its siblings, where the
//! image says so.

mod siblings;
mod store;

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest::SHA384_OUTPUT_LEN;
use fleet_key::hand_over::{self, Generation};
use fleet_key::{Family, FamilyError, Fingerprint, KeyLength, Purpose, Seed};
use link::control::KeyStep;
use manifest::{MeasuredConfig, SeedOrigin};
use thiserror::Error;
use tokio::sync::watch;
use zeroize::Zeroizing;

use self::siblings::Siblings;
pub(crate) use self::siblings::{StepError, Surroundings};
use self::store::{Opened, Store};
use crate::aws::Client;
use crate::error::InitError;
use crate::kms::Kms;
use crate::logs::Logs;

// The manifest refuses what the family's rules would, by the same numbers.
const _: () = assert!(
    hand_over::REGISTER == manifest::FAMILY_REGISTER
        && Fingerprint::DIGITS == manifest::FINGERPRINT_DIGITS
);

/// What the logs say of keys begins so.
const SUBJECT: &str = "keys";

/// The seed, and what comes of it; clones are the same one.
#[derive(Clone)]
pub(crate) struct FamilyKeys(Arc<Shared>);

struct Shared {
    family: Family,
    origin: Origin,
    /// There before the workload starts.
    seed: Held,
}

/// The seed, once there is one.
type Held = watch::Sender<Option<Arc<Seed>>>;

/// Where the seed comes from.
enum Origin {
    /// A key of KMS's wraps it.
    Store(Box<Store>),
    /// Enclaves of the family hand it over.
    Siblings(Box<Siblings>),
}

/// Why there is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum Missing {
    #[error("the image has no family: add the table [keys] to enclave.toml")]
    NoFamily,
    #[error("the enclave has no seed yet")]
    NotYet,
}

impl fmt::Debug for FamilyKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FamilyKeys({})", self.0.family)
    }
}

/// What is measured of the family before anything else can be, if enclaves hand its seed
/// over: the register, and what goes into it.
pub(crate) fn measured(
    config: &MeasuredConfig,
) -> Result<Option<(u16, [u8; SHA384_OUTPUT_LEN])>, InitError> {
    let Some(keys) = &config.keys else {
        return Ok(None);
    };
    let SeedOrigin::Siblings(siblings) = &keys.origin else {
        return Ok(None);
    };
    let measured = hand_over::measured(&family_of(&keys.family)?, siblings.generation);
    Ok(Some((hand_over::REGISTER.into(), measured)))
}

fn family_of(name: &str) -> Result<Family, InitError> {
    name.parse()
        .map_err(|error: FamilyError| InitError::Family(error.to_string()))
}

impl FamilyKeys {
    /// The keys of the image's family, if it has one; there is no seed yet.
    pub(crate) fn new(
        config: &MeasuredConfig,
        kms: Option<(&Kms, &Client)>,
        surroundings: impl FnOnce() -> Surroundings,
    ) -> Result<Option<Self>, InitError> {
        let Some(keys) = &config.keys else {
            return Ok(None);
        };
        let family = family_of(&keys.family)?;
        let origin = match (&keys.origin, kms, &config.kms) {
            (SeedOrigin::Kms(wrapped), Some((kms, client)), Some(of_kms)) => {
                let place = (&*of_kms.region, config.network.aws_fips);
                let store = Store::new(&family, wrapped, place, kms.clone(), client.clone());
                Origin::Store(Box::new(store))
            }
            // A configuration with a seed of KMS's and without KMS is refused when it is read.
            (SeedOrigin::Kms(_), _, _) => return Ok(None),
            (SeedOrigin::Siblings(siblings), _, _) => {
                let siblings = Siblings::new(family.clone(), siblings, surroundings())?;
                Origin::Siblings(Box::new(siblings))
            }
        };
        Ok(Some(Self(Arc::new(Shared {
            family,
            origin,
            seed: Held::default(),
        }))))
    }

    /// Has KMS unwrap the seed, or waits for somebody to have it made or handed over. Calls
    /// `waits` with what somebody has to do, and with nothing in the end. The error is why
    /// the workload is not started. Cancellation safe.
    pub(crate) async fn open(&self, logs: &Logs, waits: impl Fn(String)) -> Result<(), String> {
        let Shared {
            family,
            origin,
            seed,
        } = &*self.0;
        match origin {
            Origin::Store(store) => {
                let Opened {
                    seed: opened,
                    is_new,
                } = store.open().await?;
                if is_new {
                    logs.system(format!("{SUBJECT}: the first seed of {family} was made"));
                }
                seed.send_replace(Some(Arc::new(opened)));
            }
            Origin::Siblings(siblings) => siblings.wait(seed, waits).await?,
        }
        if let Some(fingerprint) = self.fingerprint() {
            logs.system(format!(
                "{SUBJECT}: family={family} fingerprint={fingerprint}"
            ));
        }
        Ok(())
    }

    /// Does a step of making the seed or handing it over, for whoever asks over the agent.
    pub(crate) async fn step(&self, step: KeyStep, logs: &Logs) -> Result<Vec<u8>, StepError> {
        match &self.0.origin {
            Origin::Store(_) => Err(StepError::NoSiblings),
            Origin::Siblings(siblings) => siblings.step(step, &self.0.seed, logs).await,
        }
    }

    /// The name of the family.
    pub(crate) fn family(&self) -> &Family {
        &self.0.family
    }

    /// Which generation of it the image is, if enclaves hand the seed over.
    pub(crate) fn generation(&self) -> Option<Generation> {
        match &self.0.origin {
            Origin::Store(_) => None,
            Origin::Siblings(siblings) => Some(siblings.generation()),
        }
    }

    /// What the seed is known by, once there is one.
    pub(crate) fn fingerprint(&self) -> Option<Fingerprint> {
        let seed = self.0.seed.borrow().clone()?;
        Some(seed.fingerprint(&self.0.family))
    }

    /// The key for a purpose.
    pub(crate) fn key(
        &self,
        purpose: &Purpose,
        length: KeyLength,
    ) -> Result<Zeroizing<Vec<u8>>, Missing> {
        let seed = self.0.seed.borrow().clone().ok_or(Missing::NotYet)?;
        Ok(seed.key(&self.0.family, purpose, length))
    }
}
