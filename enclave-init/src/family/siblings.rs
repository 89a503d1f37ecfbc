//! A seed that the enclaves of a family hand to each other. Who may give to whom is decided
//! in the crate `fleet-key`; here documents are made and verified, and seeds encrypted.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use attestation::{Accepted, Nonce, Policy, Purpose};
use aws_lc_rs::rand;
use fleet_key::hand_over::{
    CHALLENGE_BYTES, Challenge, Claims, FormatError, Generation, Gift, MAX_GIFT, MAX_REQUEST,
    Member, Refusal, Request, Rules,
};
use fleet_key::{Family, FingerprintError, Seed};
use link::control::{KeyStep, MAX_HAND_OVER};
use measurements::Pcr;
use sealed_secret::{PublicKey, PublicKeyError, RandomError, SealError, SealingKey, seal_seed};
use thiserror::Error;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::{Held, SUBJECT};
use crate::error::InitError;
use crate::logs::Logs;
use crate::security_module::SecurityModule;
use crate::trust::Trust;

// What fits the format fits the message that carries it.
const _: () = assert!(MAX_REQUEST <= MAX_HAND_OVER && MAX_GIFT <= MAX_HAND_OVER);

/// Documents that are verified at a time; a further one waits. Each takes a thread for some
/// milliseconds.
const MAX_VERIFICATIONS: usize = 2;

/// The parts of the init that handing over a seed needs.
pub(crate) struct Surroundings {
    pub(crate) nsm: SecurityModule,
    pub(crate) trust: Arc<Trust>,
    /// Why there is no time to judge certificates by, if there is none.
    pub(crate) no_time: Box<dyn Fn() -> Option<&'static str> + Send + Sync>,
}

/// This enclave among its siblings.
pub(super) struct Siblings {
    surroundings: Surroundings,
    /// What may be accepted at all: documents of no enclave in debug mode.
    policy: Policy,
    member: Mutex<Member<Arc<Seed>, SealingKey>>,
    wait: Duration,
    places: Arc<Semaphore>,
}

/// Why a step was not done. No message holds anything of a seed.
#[derive(Debug, Error)]
pub(crate) enum StepError {
    #[error(
        "the image's seed does not come from other enclaves: replace `kms` in [keys] of enclave.toml by `siblings` to have it handed over"
    )]
    NoSiblings,
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("{what}: {error}")]
    Format {
        what: &'static str,
        error: FormatError,
    },
    #[error("the challenge has {0} bytes instead of {CHALLENGE_BYTES}: is it the giver's?")]
    Challenge(usize),
    #[error(
        "{whose} document was refused: {rule}: {reason}; begin again with a new challenge, between enclaves of one platform that are not in debug mode"
    )]
    Document {
        whose: &'static str,
        rule: String,
        reason: String,
    },
    #[error(
        "{0}, so no document can be checked against the time: repeat the step once `parent-agent status` says that the clock is synchronised"
    )]
    NoTime(&'static str),
    #[error("the document could not be verified: try again")]
    Verification,
    #[error(transparent)]
    Key(#[from] PublicKeyError),
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error(transparent)]
    Random(#[from] RandomError),
    #[error("the Nitro security module failed: {0}")]
    Nsm(#[from] nsm::NsmError),
}

/// What a verified document says, copied out of it.
struct Said {
    purpose: Purpose,
    signer: Pcr,
    role: Pcr,
    register: Pcr,
    nonce: Vec<u8>,
    public_key: Option<Vec<u8>>,
    module_id: String,
}

impl Siblings {
    pub(super) fn new(
        family: Family,
        siblings: &manifest::Siblings,
        surroundings: Surroundings,
    ) -> Result<Self, InitError> {
        let unusable = |reason: String| InitError::Family(reason);
        let fingerprint = siblings.fingerprint.as_deref().map(str::parse).transpose();
        let fingerprint =
            fingerprint.map_err(|error: FingerprintError| unusable(error.to_string()))?;
        let member = Member::new(Rules {
            family,
            generation: siblings.generation,
            signer: siblings.signer,
            role: siblings.role.as_ref().map(measurements::RoleArn::pcr3),
            fingerprint,
        });
        let member = member.map_err(|error| unusable(error.to_string()))?;
        let policy = Policy::builder().allow_any_image().build();
        let policy = policy.map_err(|error| unusable(error.to_string()))?;
        Ok(Self {
            surroundings,
            policy,
            member: Mutex::new(member),
            wait: siblings.wait.as_duration(),
            places: Arc::new(Semaphore::new(MAX_VERIFICATIONS)),
        })
    }

    pub(super) fn generation(&self) -> Generation {
        self.member().rules().generation
    }

    /// Waits until there is a seed. Calls `waits` with what somebody has to do, and with
    /// nothing in the end.
    pub(super) async fn wait(&self, held: &Held, waits: impl Fn(String)) -> Result<(), String> {
        let (family, can_create) = {
            let member = self.member();
            let family = member.rules().family.clone();
            (family, member.check_create().is_ok())
        };
        let mut held = held.subscribe();
        if held.borrow_and_update().is_some() {
            return Ok(());
        }
        let create = if can_create {
            ", and `parent-agent keys create` makes the family's first one"
        } else {
            ""
        };
        waits(format!(
            "waits for the seed of the family `{family}`: `parent-agent keys hand-over` has an enclave hand it over{create}"
        ));
        let wait = self.wait;
        let found = timeout(wait, held.wait_for(Option::is_some)).await;
        let found = found.map(drop).map_err(|_| {
            format!(
                "nobody had the seed of the family `{family}` handed over or made within {} s: use `parent-agent keys hand-over`, or write a longer `wait`",
                wait.as_secs()
            )
        });
        waits(String::new());
        found
    }

    /// Does a step. What has come of it is told to the log once: whoever repeats what is
    /// refused must not fill it.
    pub(super) async fn step(
        &self,
        step: KeyStep,
        held: &Held,
        logs: &Logs,
    ) -> Result<Vec<u8>, StepError> {
        match step {
            KeyStep::Create => self.create(held, logs),
            KeyStep::Challenge => self.challenge(),
            KeyStep::Request { challenge } => self.request(&challenge).await,
            KeyStep::Give { request } => self.give(&request, logs).await,
            KeyStep::Take { gift } => self.take(&gift, held, logs).await,
        }
    }

    fn create(&self, held: &Held, logs: &Logs) -> Result<Vec<u8>, StepError> {
        let mut bytes = Zeroizing::new([0; Seed::BYTES]);
        rand::fill(bytes.as_mut_slice()).map_err(|_| RandomError)?;
        let seed = Arc::new(Seed::new(bytes.as_slice()).expect("as many bytes as a seed has"));
        let mut member = self.member();
        let family = member.rules().family.clone();
        let fingerprint = seed.fingerprint(&family);
        member.create(Arc::clone(&seed))?;
        held.send_replace(Some(seed));
        logs.system(format!("{SUBJECT}: a new seed of {family} was made here"));
        Ok(fingerprint.to_string().into_bytes())
    }

    fn challenge(&self) -> Result<Vec<u8>, StepError> {
        let mut challenge: Challenge = [0; CHALLENGE_BYTES];
        rand::fill(&mut challenge).map_err(|_| RandomError)?;
        self.member().challenge(challenge)?;
        Ok(challenge.to_vec())
    }

    async fn request(&self, challenge: &[u8]) -> Result<Vec<u8>, StepError> {
        let challenge: Challenge = challenge
            .try_into()
            .map_err(|_| StepError::Challenge(challenge.len()))?;
        // Before the module is asked.
        self.member().check_request()?;
        let key = SealingKey::generate()?;
        let public = key.public_key();
        let document = self
            .surroundings
            .nsm
            .run(move |nsm| nsm.key_request(&challenge, &public))
            .await?;
        self.member().request(&document, key)?;
        let request = Request {
            challenge,
            generation: self.generation(),
            document,
        };
        Ok(request.to_bytes())
    }

    async fn give(&self, bytes: &[u8], logs: &Logs) -> Result<Vec<u8>, StepError> {
        let request = Request::parse(bytes).map_err(|error| StepError::Format {
            what: "the request",
            error,
        })?;
        let (document, challenge) = (request.document.clone(), request.challenge.to_vec());
        let said = self.verify("the receiver's", document, challenge).await?;
        let (seed, generation, context) = {
            let mut member = self.member();
            let grant = member.give(&request, &said.claims())?;
            (Arc::clone(grant.seed), grant.generation, grant.context)
        };
        let key = PublicKey::from_spki(said.public_key.as_deref().unwrap_or_default())?;
        let sealed = seal_seed(seed.as_bytes(), &key, context.as_bytes())?;
        let nonce = context.gift_nonce(&sealed);
        let document = self
            .surroundings
            .nsm
            .run(move |nsm| nsm.key_gift(&nonce))
            .await?;
        logs.system(format!(
            "{SUBJECT}: the seed was given to {}, of generation {}",
            said.module_id, request.generation
        ));
        let gift = Gift {
            generation,
            sealed,
            document,
        };
        Ok(gift.to_bytes())
    }

    async fn take(&self, bytes: &[u8], held: &Held, logs: &Logs) -> Result<Vec<u8>, StepError> {
        let gift = Gift::parse(bytes).map_err(|error| StepError::Format {
            what: "the gift",
            error,
        })?;
        let context = {
            let member = self.member();
            member.check_request()?;
            member.context(&gift)?
        };
        let nonce = context.gift_nonce(&gift.sealed).to_vec();
        let said = self
            .verify("the giver's", gift.document.clone(), nonce)
            .await?;
        let mut member = self.member();
        let family = member.rules().family.clone();
        let fingerprint = member.take(&gift, &said.claims(), |key, context| {
            let bytes = key.open_seed(&gift.sealed, context.as_bytes()).ok()?;
            let seed = Seed::new(&bytes).ok()?;
            let fingerprint = seed.fingerprint(&family);
            Some((Arc::new(seed), fingerprint))
        })?;
        held.send_replace(member.seed().cloned());
        logs.system(format!(
            "{SUBJECT}: the seed was taken from {}, of generation {}",
            said.module_id, gift.generation
        ));
        Ok(fingerprint.to_string().into_bytes())
    }

    /// Verifies on a thread of its own: now, and under the measured root.
    async fn verify(
        &self,
        whose: &'static str,
        document: Vec<u8>,
        nonce: Vec<u8>,
    ) -> Result<Said, StepError> {
        let Surroundings { trust, no_time, .. } = &self.surroundings;
        if let Some(why) = no_time() {
            return Err(StepError::NoTime(why));
        }
        let (trust, policy) = (Arc::clone(trust), self.policy.clone());
        let place = Arc::clone(&self.places).acquire_owned().await;
        let place = place.map_err(|_| StepError::Verification)?;
        let verification = tokio::task::spawn_blocking(move || {
            // Until the work is done, even if nobody waits for it any more.
            let _place = place;
            let verifier = trust.verifier();
            let verification = verifier.verify(&document, &policy, Nonce::Fresh(&nonce));
            verification
                .outcome
                .map(|accepted| Said::new(&accepted))
                .map_err(|rejection| StepError::Document {
                    whose,
                    rule: rejection.rule.to_string(),
                    reason: rejection.reason,
                })
        });
        verification.await.map_err(|_| StepError::Verification)?
    }

    fn member(&self) -> MutexGuard<'_, Member<Arc<Seed>, SealingKey>> {
        self.member.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Said {
    fn new(accepted: &Accepted<'_>) -> Self {
        let register = |index: usize| accepted.pcr(index).unwrap_or(Pcr::ZERO);
        Self {
            purpose: accepted.purpose().unwrap_or(Purpose::Unknown),
            signer: register(8),
            role: register(3),
            register: register(fleet_key::hand_over::REGISTER.into()),
            nonce: accepted.nonce().unwrap_or_default().to_vec(),
            public_key: accepted.public_key().map(<[u8]>::to_vec),
            module_id: accepted.module_id().to_owned(),
        }
    }

    fn claims(&self) -> Claims<'_> {
        Claims {
            purpose: self.purpose,
            signer: self.signer,
            role: self.role,
            register: self.register,
            nonce: &self.nonce,
            public_key: self.public_key.as_deref(),
        }
    }
}
