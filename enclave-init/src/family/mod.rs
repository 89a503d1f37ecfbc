//! The keys that the enclaves of a family share: derived from one seed, which is in the
//! init's memory and which the init gives to nobody.

mod store;

use std::fmt;
use std::sync::{Arc, OnceLock};

use fleet_key::{Family, FamilyError, Fingerprint, KeyLength, Purpose, Seed};
use manifest::MeasuredConfig;
use thiserror::Error;
use zeroize::Zeroizing;

use self::store::{Opened, Store};
use crate::aws::Client;
use crate::error::InitError;
use crate::kms::Kms;
use crate::logs::Logs;

/// What the logs say of keys begins so.
const SUBJECT: &str = "keys";

/// The seed, and what comes of it; clones are the same one.
#[derive(Clone)]
pub(crate) struct FamilyKeys(Arc<Shared>);

struct Shared {
    family: Family,
    /// What has the wrapped seed.
    store: Store,
    /// Opened before the workload starts.
    seed: OnceLock<Seed>,
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

impl FamilyKeys {
    /// The keys of the image's family, if it has one; there is no seed yet.
    pub(crate) fn new(
        config: &MeasuredConfig,
        kms: &Kms,
        client: &Client,
    ) -> Result<Option<Self>, InitError> {
        let (Some(keys), Some(of_kms)) = (&config.keys, &config.kms) else {
            return Ok(None);
        };
        let family: Result<Family, FamilyError> = keys.family.parse();
        let family = family.map_err(|error| InitError::Family(error.to_string()))?;
        let place = (&*of_kms.region, config.network.aws_fips);
        let store = Store::new(keys, place, kms.clone(), client.clone());
        Ok(Some(Self(Arc::new(Shared {
            family,
            store,
            seed: OnceLock::new(),
        }))))
    }

    /// Has KMS unwrap the seed. The error is why the workload is not started. Cancellation
    /// safe.
    pub(crate) async fn open(&self, logs: &Logs) -> Result<(), String> {
        let Opened { seed, is_new } = self.0.store.open().await?;
        let family = &self.0.family;
        if is_new {
            logs.system(format!("{SUBJECT}: the first seed of {family} was made"));
        }
        let fingerprint = seed.fingerprint(family);
        logs.system(format!(
            "{SUBJECT}: family={family} fingerprint={fingerprint}"
        ));
        // It is opened once.
        let _ = self.0.seed.set(seed);
        Ok(())
    }

    /// The name of the family.
    pub(crate) fn family(&self) -> &Family {
        &self.0.family
    }

    /// What the seed is known by, once there is one.
    pub(crate) fn fingerprint(&self) -> Option<Fingerprint> {
        let seed = self.0.seed.get()?;
        Some(seed.fingerprint(&self.0.family))
    }

    /// The key for a purpose.
    pub(crate) fn key(
        &self,
        purpose: &Purpose,
        length: KeyLength,
    ) -> Result<Zeroizing<Vec<u8>>, Missing> {
        let seed = self.0.seed.get().ok_or(Missing::NotYet)?;
        Ok(seed.key(&self.0.family, purpose, length))
    }
}
