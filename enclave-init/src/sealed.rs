//! The secrets that were sealed to this boot: opened when the agent hands them in, and
//! kept for the workload until the enclave ends.
//!
//! The measured configuration says which secrets there can be, and who seals each. A
//! secret that somebody else has sealed, the parent among them, is not opened; and the
//! first that its sender has sealed stays, so that nothing the workload has read changes.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use link::control::MAX_SEALED_SECRET;
use manifest::SealedSecret;
use sealed_secret::{
    Binding, FormatError, MAX_SEALED, OpenError, PublicKey, Sealed, SealingKey, Sender,
};
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::error::InitError;
use crate::security_module::SecurityModule;

// What fits the format fits the message that carries it.
const _: () = assert!(MAX_SEALED <= MAX_SEALED_SECRET);

/// A secret. It is overwritten before its memory is given back.
pub(crate) type Secret = Arc<Zeroizing<Vec<u8>>>;

/// The secrets that can be sealed to this boot; clones are the same ones.
#[derive(Debug, Clone)]
pub(crate) struct SealedSecrets(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    key: SealingKey,
    senders: BTreeMap<String, Sender>,
    opened: watch::Sender<Opened>,
}

#[derive(Default)]
struct Opened(BTreeMap<String, Secret>);

impl fmt::Debug for Opened {
    /// The names only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Why a sealed secret was not taken.
#[derive(Debug, Error)]
pub(crate) enum PutError {
    #[error(transparent)]
    Format(#[from] FormatError),
    #[error(
        "the image declares no sealed secret `{name}`: it has {known}; seal it under one of these names, or add it to workload.sealed_secrets and build the image again"
    )]
    Undeclared { name: String, known: String },
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(
        "`{0}` has another value already, and keeps it until the enclave ends: start the enclave again to change it"
    )]
    OtherValue(String),
    #[error("the Nitro security module failed: {0}")]
    Nsm(#[from] nsm::NsmError),
}

/// Why there is no secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum Missing {
    #[error("the image declares no sealed secret of that name in workload.sealed_secrets")]
    Undeclared,
    #[error("nobody has put this sealed secret yet: `attest seal` seals it to this boot")]
    NotYet,
}

impl SealedSecrets {
    /// A new key for those that the measured configuration declares; nothing if there are
    /// none.
    pub(crate) fn new(declared: &[SealedSecret]) -> Result<Option<Self>, InitError> {
        if declared.is_empty() {
            return Ok(None);
        }
        let mut senders = BTreeMap::new();
        for SealedSecret { name, sender } in declared {
            let unusable = |reason: String| InitError::SealedSecret {
                name: name.to_string(),
                reason,
            };
            let der = STANDARD
                .decode(sender)
                .map_err(|error| unusable(error.to_string()))?;
            let sender = Sender::from_spki(&der).map_err(|error| unusable(error.to_string()))?;
            senders.insert(name.to_string(), sender);
        }
        let key =
            SealingKey::generate().map_err(|error| InitError::SealingKey(error.to_string()))?;
        Ok(Some(Self(Arc::new(Shared {
            key,
            senders,
            opened: watch::Sender::default(),
        }))))
    }

    /// What documents for sealing carry.
    pub(crate) fn public_key(&self) -> PublicKey {
        self.0.key.public_key()
    }

    /// Opens a sealed secret and keeps it; gives its name. The same value may be put again.
    pub(crate) async fn put(&self, nsm: &SecurityModule, bytes: &[u8]) -> Result<String, PutError> {
        let sealed = Sealed::parse(bytes)?;
        let name = sealed.name().to_owned();
        let Some(sender) = self.0.senders.get(&name) else {
            let known: Vec<_> = self.0.senders.keys().map(String::as_str).collect();
            let known = known.join(", ");
            return Err(PutError::Undeclared { name, known });
        };
        let registers = sealed.registers();
        let binding = nsm
            .run(move |nsm| {
                let module_id = nsm.describe()?.module_id;
                let values = registers
                    .map(|index| Ok((index, nsm.describe_pcr(index.into())?.0)))
                    .collect::<Result<Vec<_>, nsm::NsmError>>()?;
                Ok(Binding::new(module_id, values))
            })
            .await?;
        let secret = self.0.key.open(&sealed, sender, &binding)?;
        let mut is_other = false;
        self.0.opened.send_if_modified(|Opened(opened)| {
            if let Some(known) = opened.get(&name) {
                is_other = known.as_slice() != secret.as_slice();
                return false;
            }
            opened.insert(name.clone(), Arc::new(secret));
            true
        });
        if is_other {
            return Err(PutError::OtherValue(name));
        }
        Ok(name)
    }

    /// A secret, for which it waits at most so long.
    pub(crate) async fn get(&self, name: &str, wait: Duration) -> Result<Secret, Missing> {
        if !self.0.senders.contains_key(name) {
            return Err(Missing::Undeclared);
        }
        let mut opened = self.0.opened.subscribe();
        // Also with no time to wait it looks once.
        let found = timeout(wait, opened.wait_for(|opened| opened.0.contains_key(name))).await;
        match found {
            Ok(Ok(opened)) => opened.0.get(name).cloned().ok_or(Missing::NotYet),
            _ => Err(Missing::NotYet),
        }
    }
}
