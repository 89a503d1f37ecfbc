//! What a verifier demands of an enclave.

use std::collections::BTreeMap;
use std::time::Duration;

use eif::{Measurements, Pcr};
use thiserror::Error;

use crate::document::PCR_COUNT;

/// How far a document's time may be ahead of the verifier's clock, unless told otherwise.
const DEFAULT_CLOCK_SKEW: Duration = Duration::from_secs(60);
/// How old a document may be, unless told otherwise.
const DEFAULT_MAX_AGE: Duration = Duration::from_secs(5 * 60);

/// What a verifier demands. Built by [`Policy::builder`].
#[derive(Debug, Clone)]
pub struct Policy {
    pub(crate) pcrs: BTreeMap<u8, Vec<Pcr>>,
    pub(crate) nonce: Option<Vec<u8>>,
    pub(crate) user_data: Option<Vec<u8>>,
    pub(crate) public_key: Option<Vec<u8>>,
    pub(crate) max_age: Duration,
    pub(crate) clock_skew: Duration,
    pub(crate) debug_allowed: bool,
}

/// Why a policy cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PolicyError {
    /// No register is compared.
    #[error(
        "the policy names no measurement, so any enclave would pass: give the measurements that image-builder printed"
    )]
    NoMeasurement,
    /// A register that does not exist.
    #[error("PCR{0} does not exist: registers are 0 to 31")]
    NoSuchPcr(u8),
}

impl Policy {
    /// A policy that refuses debug enclaves and documents older than five
    /// minutes; it needs at least one measurement.
    pub fn builder() -> PolicyBuilder {
        PolicyBuilder {
            policy: Self {
                pcrs: BTreeMap::new(),
                nonce: None,
                user_data: None,
                public_key: None,
                max_age: DEFAULT_MAX_AGE,
                clock_skew: DEFAULT_CLOCK_SKEW,
                debug_allowed: false,
            },
        }
    }
}

/// Collects a [`Policy`].
#[derive(Debug, Clone)]
#[must_use]
pub struct PolicyBuilder {
    policy: Policy,
}

impl PolicyBuilder {
    /// Allows an image. Called more than once, it allows each of them, register
    /// by register.
    pub fn measurements(self, image: Measurements) -> Self {
        let builder = self
            .pcr(0, image.pcr0)
            .pcr(1, image.pcr1)
            .pcr(2, image.pcr2);
        match image.pcr8 {
            Some(pcr8) => builder.pcr(8, pcr8),
            None => builder,
        }
    }

    /// Allows a value of a register; every register that is named must have one
    /// of its values.
    pub fn pcr(mut self, index: u8, value: Pcr) -> Self {
        self.policy.pcrs.entry(index).or_default().push(value);
        self
    }

    /// Demands exactly this nonce.
    pub fn nonce(mut self, nonce: Vec<u8>) -> Self {
        self.policy.nonce = Some(nonce);
        self
    }

    /// Demands exactly this user data.
    pub fn user_data(mut self, user_data: Vec<u8>) -> Self {
        self.policy.user_data = Some(user_data);
        self
    }

    /// Demands exactly this public key.
    pub fn public_key(mut self, public_key: Vec<u8>) -> Self {
        self.policy.public_key = Some(public_key);
        self
    }

    /// How old the document may be at the time of checking; five minutes unless said.
    pub fn max_age(mut self, max_age: Duration) -> Self {
        self.policy.max_age = max_age;
        self
    }

    /// How far the document's time may be ahead of the time of checking; one
    /// minute unless said.
    pub fn clock_skew(mut self, clock_skew: Duration) -> Self {
        self.policy.clock_skew = clock_skew;
        self
    }

    /// Accepts enclaves in debug mode, whose memory the parent can read.
    pub fn allow_debug(mut self) -> Self {
        self.policy.debug_allowed = true;
        self
    }

    /// The policy, if it demands anything.
    pub fn build(self) -> Result<Policy, PolicyError> {
        if self.policy.pcrs.is_empty() {
            return Err(PolicyError::NoMeasurement);
        }
        match self
            .policy
            .pcrs
            .keys()
            .find(|index| usize::from(**index) >= PCR_COUNT)
        {
            Some(index) => Err(PolicyError::NoSuchPcr(*index)),
            None => Ok(self.policy),
        }
    }
}
