//! Credentials, kept until shortly before they expire.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use aws_config::SdkConfig;
use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use tokio::time::timeout;

/// How long before their end credentials are no longer used.
const MARGIN: Duration = Duration::from_secs(60);
/// How long a provider may take.
const PROVIDE_TIMEOUT: Duration = Duration::from_secs(10);

/// Where a configuration has its credentials from.
#[derive(Debug, Clone)]
pub struct Provider(SharedCredentialsProvider);

impl Provider {
    /// The provider of `config`, if it has one. It is not asked yet.
    pub fn new(config: &SdkConfig) -> Option<Self> {
        config.credentials_provider().map(Self)
    }

    /// Asks for credentials; nothing is kept. The error is why there are none.
    pub async fn provide(&self) -> Result<Credentials, String> {
        timeout(PROVIDE_TIMEOUT, self.0.provide_credentials())
            .await
            .map_err(|_| format!("none came within {} s", PROVIDE_TIMEOUT.as_secs()))?
            .map_err(|error| crate::response::chain(&error))
    }
}

#[derive(Debug)]
pub(crate) struct Cache {
    provider: Provider,
    kept: Mutex<Option<Credentials>>,
}

impl Cache {
    pub(crate) fn new(provider: Provider) -> Self {
        Self {
            provider,
            kept: Mutex::default(),
        }
    }

    /// The kept credentials, or new ones. Two callers at the same time may both
    /// ask the provider, which does no harm.
    pub(crate) async fn get(&self) -> Result<Credentials, String> {
        if let Some(credentials) = self.kept().as_ref().filter(|kept| is_fresh(kept)) {
            return Ok(credentials.clone());
        }
        let credentials = self.provider.provide().await?;
        *self.kept() = Some(credentials.clone());
        Ok(credentials)
    }

    /// Forgets the kept credentials.
    pub(crate) fn forget(&self) {
        *self.kept() = None;
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Option<Credentials>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_fresh(credentials: &Credentials) -> bool {
    credentials
        .expiry()
        .is_none_or(|end| end > SystemTime::now() + MARGIN)
}
