//! The NSM, shared by the boot, challenges and the local API. Its calls block,
//! so one thread makes them, one after the other.
//!
//! The module signs whatever it is asked to, so what may be asked is decided here.
//! There is one function for each [`Purpose`], and no other way to a document:
//!
//! | purpose | nonce | user data | public key |
//! |---|---|---|---|
//! | relayed challenge | the challenger's | the purpose | the workload's identity key |
//! | sealing | the challenger's | the purpose | the init's key of this boot |
//! | self-check, clock | the module's | the purpose | none |
//! | key release | none | the purpose | the init's, for this boot |
//! | key request | the giver's | the purpose | the init's, for this request |
//! | key gift | a digest over request and ciphertext | the purpose | none |
//! | workload | the workload's | the workload's, unless it begins as a purpose | the workload's |

use attestation::Purpose;
use fleet_key::hand_over::{Challenge, GIFT_NONCE_BYTES};
use link::Bytes;
use measurements::Pcr;
use nsm::{Description, MAX_NONCE, MAX_PUBLIC_KEY, MAX_USER_DATA, Nsm, NsmError};
use sealed_secret::PublicKey;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use crate::error::{Doing, InitError};
use crate::identity::Identity;

/// Operations that wait for the thread; a further caller waits for room.
const MAX_WAITING: usize = 16;
/// Bytes of the init's own nonces.
const OWN_NONCE: usize = 32;

type Operation = Box<dyn FnOnce(&mut Module) + Send>;

/// A handle to the thread that can be cloned; with the last one the thread ends.
#[derive(Debug, Clone)]
pub(crate) struct SecurityModule {
    operations: mpsc::Sender<Operation>,
    identity: Identity,
}

/// The module as operations have it: it signs documents for the purposes above only.
#[derive(Debug)]
pub(crate) struct Module {
    nsm: Nsm,
    identity: Identity,
}

/// A challenger's nonce.
#[derive(Debug)]
pub(crate) struct Nonce(Bytes<MAX_NONCE>);

/// User data that cannot be taken for a purpose of the init's.
#[derive(Debug)]
pub(crate) struct UserData(Bytes<MAX_USER_DATA>);

/// What the workload chooses of a document of its own.
#[derive(Debug)]
pub(crate) struct WorkloadFields {
    pub(crate) nonce: Option<Bytes<MAX_NONCE>>,
    pub(crate) user_data: Option<UserData>,
    pub(crate) public_key: Option<Bytes<MAX_PUBLIC_KEY>>,
}

/// A document for the init itself, and the nonce that it must hold.
#[derive(Debug)]
pub(crate) struct OwnDocument {
    pub(crate) document: Vec<u8>,
    pub(crate) nonce: Vec<u8>,
}

/// The nonce of a document for its timestamp, drawn from the module.
#[derive(Debug)]
pub(crate) struct ClockNonce(Vec<u8>);

/// The challenge has no nonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the nonce is empty: send 1 to {MAX_NONCE} bytes that were never sent before")]
pub(crate) struct EmptyNonce;

/// The user data looks like the init's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "user_data begins with `enclave-purpose:`, by which documents of the init are known: begin it otherwise"
)]
pub(crate) struct ReservedUserData;

impl Nonce {
    pub(crate) fn new(nonce: Bytes<MAX_NONCE>) -> Result<Self, EmptyNonce> {
        if nonce.is_empty() {
            return Err(EmptyNonce);
        }
        Ok(Self(nonce))
    }
}

impl UserData {
    pub(crate) fn new(user_data: Bytes<MAX_USER_DATA>) -> Result<Self, ReservedUserData> {
        match Purpose::of(Some(&user_data)) {
            Purpose::Workload => Ok(Self(user_data)),
            _ => Err(ReservedUserData),
        }
    }
}

/// A module that is being opened, and asked for what is wanted of it first.
#[derive(Debug)]
pub(crate) struct Opening<T> {
    module: SecurityModule,
    answer: oneshot::Receiver<Result<Result<T, NsmError>, NsmError>>,
}

impl<T> Opening<T> {
    /// The opened module, and what came of the first operation.
    pub(crate) async fn finish(self) -> Result<(SecurityModule, Result<T, NsmError>), NsmError> {
        let first = self.answer.await.unwrap_or_else(|_| Err(gone()))?;
        Ok((self.module, first))
    }
}

impl SecurityModule {
    /// Starts the thread, which opens the module and makes a first operation. Both
    /// go on while the caller does something else.
    pub(crate) fn open<T: Send + 'static>(
        open: impl FnOnce() -> Result<Nsm, NsmError> + Send + 'static,
        first: impl FnOnce(&mut Module) -> Result<T, NsmError> + Send + 'static,
    ) -> Result<Opening<T>, InitError> {
        let (operations, mut waiting) = mpsc::channel::<Operation>(MAX_WAITING);
        let (answering, answer) = oneshot::channel();
        let identity = Identity::default();
        let of_module = identity.clone();
        std::thread::Builder::new()
            .name("nsm".to_owned())
            .spawn(move || {
                let mut module = match open() {
                    Ok(nsm) => Module {
                        nsm,
                        identity: of_module,
                    },
                    Err(error) => return drop(answering.send(Err(error))),
                };
                // The boot may have been given up meanwhile.
                let _ = answering.send(Ok(first(&mut module)));
                while let Some(operation) = waiting.blocking_recv() {
                    operation(&mut module);
                }
            })
            .doing(|| "starting the NSM's thread".to_owned())?;
        let module = Self {
            operations,
            identity,
        };
        Ok(Opening { module, answer })
    }

    /// Runs `operation` on the module's thread, unless the caller has stopped
    /// waiting by then.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&mut Module) -> Result<T, NsmError> + Send + 'static,
    ) -> Result<T, NsmError> {
        let (answer, answered) = oneshot::channel();
        let operation: Operation = Box::new(move |module| {
            if !answer.is_closed() {
                // The caller may stop waiting while the module works.
                let _ = answer.send(operation(module));
            }
        });
        self.operations.send(operation).await.map_err(|_| gone())?;
        answered.await.unwrap_or_else(|_| Err(gone()))
    }

    /// The key that documents for relayed challenges carry.
    pub(crate) const fn identity(&self) -> &Identity {
        &self.identity
    }
}

impl Module {
    /// A document for a challenge that came over the parent, which chose the nonce
    /// and nothing else.
    pub(crate) fn relayed_challenge(&mut self, nonce: &Nonce) -> Result<Vec<u8>, NsmError> {
        let user_data = Purpose::RelayedChallenge.user_data();
        let key = self.identity.key();
        self.nsm
            .attestation(user_data.as_deref(), Some(&nonce.0), key)
    }

    /// A document for the key that secrets are sealed to. The parent, over which the
    /// challenge came, chose the nonce and nothing else.
    pub(crate) fn sealing(&mut self, nonce: &Nonce, key: &PublicKey) -> Result<Vec<u8>, NsmError> {
        let user_data = Purpose::Sealing.user_data();
        self.nsm
            .attestation(user_data.as_deref(), Some(&nonce.0), Some(&key.to_spki()))
    }

    /// A document for the verification at boot, with a nonce that is new.
    pub(crate) fn self_check(&mut self) -> Result<OwnDocument, NsmError> {
        let nonce = self.random_bytes(OWN_NONCE)?;
        let document = self.own(Purpose::SelfCheck, &nonce)?;
        Ok(OwnDocument { document, nonce })
    }

    /// A document for its timestamp. The nonce is drawn before, so that the module
    /// makes the document and nothing else meanwhile.
    pub(crate) fn clock(&mut self, nonce: &ClockNonce) -> Result<Vec<u8>, NsmError> {
        self.own(Purpose::Clock, &nonce.0)
    }

    /// The nonce of a document for its timestamp.
    pub(crate) fn clock_nonce(&mut self) -> Result<ClockNonce, NsmError> {
        self.random_bytes(OWN_NONCE).map(ClockNonce)
    }

    fn own(&mut self, purpose: Purpose, nonce: &[u8]) -> Result<Vec<u8>, NsmError> {
        let user_data = purpose.user_data();
        self.nsm
            .attestation(user_data.as_deref(), Some(nonce), None)
    }

    /// A document to whose key, the init's own, a key management service is to encrypt.
    /// It holds no nonce, because the service knows none.
    pub(crate) fn key_release(&mut self, public_key: &[u8]) -> Result<Vec<u8>, NsmError> {
        let user_data = Purpose::KeyRelease.user_data();
        self.nsm
            .attestation(user_data.as_deref(), None, Some(public_key))
    }

    /// A document for a request to another enclave of the family, whose nonce this is said
    /// to be, and which encrypts its seed to the key.
    pub(crate) fn key_request(
        &mut self,
        challenge: &Challenge,
        key: &PublicKey,
    ) -> Result<Vec<u8>, NsmError> {
        let user_data = Purpose::KeyRequest.user_data();
        self.nsm
            .attestation(user_data.as_deref(), Some(challenge), Some(&key.to_spki()))
    }

    /// A document for the answer to such a request; the nonce is a digest over both.
    pub(crate) fn key_gift(&mut self, nonce: &[u8; GIFT_NONCE_BYTES]) -> Result<Vec<u8>, NsmError> {
        self.own(Purpose::KeyGift, nonce)
    }

    /// A document that the workload asked for, with what it chose.
    pub(crate) fn workload(&mut self, fields: &WorkloadFields) -> Result<Vec<u8>, NsmError> {
        self.nsm.attestation(
            fields.user_data.as_ref().map(|UserData(data)| &**data),
            fields.nonce.as_deref(),
            fields.public_key.as_deref(),
        )
    }

    /// What the module says of itself.
    pub(crate) fn describe(&mut self) -> Result<Description, NsmError> {
        self.nsm.describe()
    }

    /// A register's value, and whether it is locked.
    pub(crate) fn describe_pcr(&mut self, index: u16) -> Result<(Pcr, bool), NsmError> {
        self.nsm.describe_pcr(index)
    }

    /// Measures `data` into a register, and gives its new value.
    pub(crate) fn extend_pcr(&mut self, index: u16, data: &[u8]) -> Result<Pcr, NsmError> {
        self.nsm.extend_pcr(index, data)
    }

    /// Locks a register until the enclave ends.
    pub(crate) fn lock_pcr(&mut self, index: u16) -> Result<(), NsmError> {
        self.nsm.lock_pcr(index)
    }

    /// Locks the registers below `range` until the enclave ends.
    pub(crate) fn lock_pcrs(&mut self, range: u16) -> Result<(), NsmError> {
        self.nsm.lock_pcrs(range)
    }

    /// So many random bytes.
    pub(crate) fn random_bytes(&mut self, count: usize) -> Result<Vec<u8>, NsmError> {
        let mut bytes = Vec::with_capacity(count);
        while bytes.len() < count {
            bytes.extend(self.nsm.random()?);
        }
        bytes.truncate(count);
        Ok(bytes)
    }
}

fn gone() -> NsmError {
    NsmError::Message("the thread that speaks to it has ended".to_owned())
}
