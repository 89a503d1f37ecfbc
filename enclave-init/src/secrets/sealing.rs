//! Secrets that are sealed to this boot: opened when the agent hands them in.
//!
//! The measured configuration says which secrets there can be, and who seals each. A
//! secret that somebody else has sealed, the parent among them, is not opened; and the
//! first that its sender has sealed stays, so that nothing the workload has read changes.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use link::control::MAX_SEALED_SECRET;
use manifest::{Secret, SecretOrigin};
use sealed_secret::{
    Binding, FormatError, MAX_SEALED, OpenError, PublicKey, Sealed, SealingKey, Sender,
};
use thiserror::Error;

use super::{Declared, SECRETS_FOLDER, Secrets, folder};
use crate::error::InitError;
use crate::security_module::SecurityModule;

// What fits the format fits the message that carries it.
const _: () = assert!(MAX_SEALED <= MAX_SEALED_SECRET);

/// What opens sealed secrets.
#[derive(Debug)]
pub(super) struct Sealing {
    key: SealingKey,
    senders: BTreeMap<String, Sender>,
    /// One is delivered at a time.
    turn: Mutex<()>,
}

/// Why a sealed secret was not taken.
#[derive(Debug, Error)]
pub(crate) enum PutError {
    #[error(transparent)]
    Format(#[from] FormatError),
    #[error(
        "the image declares no sealed secrets: add one to [[secrets]] of its manifest, and build it again"
    )]
    NoneDeclared,
    #[error(
        "the image declares no sealed secret `{name}`: it has {known}; seal it under one of these names, or add it to [[secrets]] and build the image again"
    )]
    Undeclared { name: String, known: String },
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(
        "`{0}` has another value already, and keeps it until the enclave ends: start the enclave again to change it"
    )]
    OtherValue(String),
    #[error("`{name}` cannot be delivered: {reason}")]
    Deliver { name: String, reason: String },
    #[error("the Nitro security module failed: {0}")]
    Nsm(#[from] nsm::NsmError),
}

impl Sealing {
    /// A new key for those that the measured configuration declares; nothing if there are
    /// none.
    pub(super) fn new(declared: &[Secret]) -> Result<Option<Self>, InitError> {
        let mut senders = BTreeMap::new();
        for Secret { name, origin, .. } in declared {
            let SecretOrigin::Sealed(sealed) = origin else {
                continue;
            };
            let unusable = |reason: String| InitError::SealedSecret {
                name: name.to_string(),
                reason,
            };
            let der = STANDARD
                .decode(&sealed.sender)
                .map_err(|error| unusable(error.to_string()))?;
            let sender = Sender::from_spki(&der).map_err(|error| unusable(error.to_string()))?;
            senders.insert(name.to_string(), sender);
        }
        if senders.is_empty() {
            return Ok(None);
        }
        let key =
            SealingKey::generate().map_err(|error| InitError::SealingKey(error.to_string()))?;
        Ok(Some(Self {
            key,
            senders,
            turn: Mutex::default(),
        }))
    }

    pub(super) fn public_key(&self) -> PublicKey {
        self.key.public_key()
    }
}

impl Secrets {
    /// Opens a sealed secret and delivers it; gives its name. The same value may be put
    /// again, of which nothing comes.
    pub(crate) async fn put(
        &self,
        nsm: &SecurityModule,
        bytes: &[u8],
    ) -> Result<Option<String>, PutError> {
        let sealing = self.0.sealing.as_ref().ok_or(PutError::NoneDeclared)?;
        let sealed = Sealed::parse(bytes)?;
        let name = sealed.name().to_owned();
        let mut secrets = self.0.secrets.iter();
        let declared = secrets.find(|declared| declared.config.name.as_str() == name);
        let (Some(sender), Some(declared)) = (sealing.senders.get(&name), declared) else {
            let known: Vec<_> = sealing.senders.keys().map(String::as_str).collect();
            let known = known.join(", ");
            return Err(PutError::Undeclared { name, known });
        };
        // Before the module is asked for registers that somebody has chosen.
        if !sealed.is_signed_by(sender) {
            return Err(OpenError.into());
        }
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
        let value = sealing.key.open(&sealed, sender, &binding)?;
        let _turn = sealing.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let cannot = |reason: String| PutError::Deliver {
            name: name.clone(),
            reason,
        };
        if declared.held.borrow().is_delivered {
            let is_same = declared.has(&value);
            return if is_same.map_err(|error| cannot(error.to_string()))? {
                Ok(None)
            } else {
                Err(PutError::OtherValue(name))
            };
        }
        self.deliver(declared, value, None)
            .map_err(|failure| cannot(failure.explain()))?;
        Ok(Some(name))
    }
}

impl Declared {
    /// Whether a secret that was delivered has this value. Where the value was not kept,
    /// its file has it.
    fn has(&self, value: &[u8]) -> Result<bool, InitError> {
        if let Some(kept) = &self.held.borrow().value {
            return Ok(kept.as_slice() == value);
        }
        match &self.config.file {
            Some(file) => folder::has(Path::new(SECRETS_FOLDER), file, value),
            None => Ok(false),
        }
    }
}
