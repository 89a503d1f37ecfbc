//! What a relying party expects of a result.

use std::time::Duration;

use attestation::{ImageMeasurements, PCR_COUNT, Pcr, Policy, Profile};
use thiserror::Error;

use crate::freshness::{Freshness, NONCE_BYTES};

/// By how much clocks may differ unless said.
pub const DEFAULT_CLOCK_SKEW: Duration = Duration::from_secs(60);
/// By how much they may be said to differ at most.
const MAX_CLOCK_SKEW: Duration = Duration::from_secs(60 * 60);

/// What a relying party expects of a result.
///
/// Two things have to be said, because to leave them out would accept too much: the
/// nonce, or that there is none; and what runs in the enclave (a policy, or the registers of
/// an image), or that any policy of the issuer is good.
///
/// Unless said otherwise, the result must be affirming, of an enclave, on AWS's
/// hardware.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expectations {
    pub(crate) nonce: Option<Vec<u8>>,
    pub(crate) issuer: Option<String>,
    pub(crate) policies: Vec<String>,
    pub(crate) images: Vec<String>,
    pub(crate) measurements: Vec<ImageMeasurements>,
    pub(crate) pcrs: Vec<(u8, Pcr)>,
    pub(crate) module_id: Option<String>,
    pub(crate) profile: Profile,
    pub(crate) freshness: Freshness,
    pub(crate) max_age: Option<Duration>,
    pub(crate) clock_skew: Duration,
    pub(crate) warning: bool,
    pub(crate) other_roots: bool,
}

/// Makes [`Expectations`].
#[derive(Debug, Clone)]
#[must_use]
pub struct ExpectationsBuilder {
    expected: Expectations,
    any_policy: bool,
}

/// Why expectations cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ExpectationsError {
    /// Nothing says what may run in the enclave.
    #[error(
        "nothing says what may run in the enclave: expect a policy, an image's measurements, or PCR0, PCR8, or PCR1 and PCR2 that are not zero; or allow any policy of the issuer. An image's name is what its policy calls it, and says nothing without one"
    )]
    NamesNoCode,
    /// No result can carry such a nonce.
    #[error(
        "the nonce has {0} bytes, and a result carries {start} to {end} (RFC 9711, section 4.1)",
        start = NONCE_BYTES.start(),
        end = NONCE_BYTES.end()
    )]
    Nonce(usize),
    /// No document has such a register.
    #[error("there is no PCR{0}: the last is PCR{last}", last = PCR_COUNT - 1)]
    Pcr(u8),
    /// Clocks do not differ by so much.
    #[error("a clock skew is at most an hour: set the clock instead")]
    ClockSkew,
}

impl Expectations {
    /// The result is for this nonce, of 8 to 64 bytes, which the relying party chose
    /// for this result and no other.
    pub fn with_nonce(nonce: impl Into<Vec<u8>>) -> ExpectationsBuilder {
        ExpectationsBuilder::new(Some(nonce.into()))
    }

    /// The result is for any nonce or none: whoever has it can show it again until
    /// it expires.
    pub fn without_nonce() -> ExpectationsBuilder {
        ExpectationsBuilder::new(None)
    }
}

impl ExpectationsBuilder {
    fn new(nonce: Option<Vec<u8>>) -> Self {
        // A nonce of the relying party's is worth nothing where it was not the
        // document's.
        let freshness = match nonce {
            Some(_) => Freshness::Caller,
            None => Freshness::None,
        };
        Self {
            expected: Expectations {
                nonce,
                issuer: None,
                policies: Vec::new(),
                images: Vec::new(),
                measurements: Vec::new(),
                pcrs: Vec::new(),
                module_id: None,
                profile: Profile::Enclave,
                freshness,
                max_age: None,
                clock_skew: DEFAULT_CLOCK_SKEW,
                warning: false,
                other_roots: false,
            },
            any_policy: false,
        }
    }

    /// The claim `iss` is this.
    pub fn issuer(mut self, issuer: impl Into<String>) -> Self {
        self.expected.issuer = Some(issuer.into());
        self
    }

    /// The policy has this name or digest (`sha256:…`); said again, one of them.
    /// A digest says what the policy demands, a name only what the issuer calls it.
    pub fn policy(mut self, id: impl Into<String>) -> Self {
        self.expected.policies.push(id.into());
        self
    }

    /// Any policy of the issuer is good: to know only that it accepts the document.
    pub fn allow_any_policy(mut self) -> Self {
        self.any_policy = true;
        self
    }

    /// The document is of the image that the policy calls this; said again, one of
    /// them. The policy has to be expected too: in another one, which an issuer may take
    /// from whoever asks, an image of anybody's can have this name.
    pub fn image(mut self, name: impl Into<String>) -> Self {
        self.expected.images.push(name.into());
        self
    }

    /// The document is of an image with these measurements, and an unsigned image's PCR8
    /// is zero; said again, one of them.
    pub fn measurements(mut self, measurements: impl Into<ImageMeasurements>) -> Self {
        self.expected.measurements.push(measurements.into());
        self
    }

    /// A register has this value; said again of the same register, one of the values.
    pub fn pcr(mut self, index: u8, value: Pcr) -> Self {
        self.expected.pcrs.push((index, value));
        self
    }

    /// The document is of the enclave or instance with this module id.
    pub fn module_id(mut self, module_id: impl Into<String>) -> Self {
        self.expected.module_id = Some(module_id.into());
        self
    }

    /// The document is of this kind instead of an enclave's.
    pub fn profile(mut self, profile: Profile) -> Self {
        self.expected.profile = profile;
        self
    }

    /// This, or more, shows that the document is new. With a nonce it is
    /// [`Freshness::Caller`] at least.
    pub fn freshness(mut self, least: Freshness) -> Self {
        self.expected.freshness = self.expected.freshness.max(least);
        self
    }

    /// The result was issued no longer ago than this; until it expires unless said.
    pub fn max_age(mut self, age: Duration) -> Self {
        self.expected.max_age = Some(age);
        self
    }

    /// By how much the issuer's clock and this one may differ; a minute unless said.
    pub fn clock_skew(mut self, skew: Duration) -> Self {
        self.expected.clock_skew = skew;
        self
    }

    /// A result may be warning: of a policy that names no code, or in debug mode.
    pub fn allow_warning(mut self) -> Self {
        self.expected.warning = true;
        self
    }

    /// The issuer may trust other roots than AWS's, as in tests: nothing is known
    /// of the hardware then.
    pub fn allow_other_roots(mut self) -> Self {
        self.expected.other_roots = true;
        self
    }

    /// The expectations, if they can be met and say what has to be said.
    pub fn build(self) -> Result<Expectations, ExpectationsError> {
        let expected = self.expected;
        if let Some(nonce) = &expected.nonce
            && !NONCE_BYTES.contains(&nonce.len())
        {
            return Err(ExpectationsError::Nonce(nonce.len()));
        }
        if let Some((index, _)) = expected
            .pcrs
            .iter()
            .find(|(index, _)| usize::from(*index) >= PCR_COUNT)
        {
            return Err(ExpectationsError::Pcr(*index));
        }
        if expected.clock_skew > MAX_CLOCK_SKEW {
            return Err(ExpectationsError::ClockSkew);
        }
        if !self.any_policy && !expected.names_code() {
            return Err(ExpectationsError::NamesNoCode);
        }
        Ok(expected)
    }
}

impl Expectations {
    fn names_code(&self) -> bool {
        !self.policies.is_empty() || self.registers_name_code()
    }

    /// Whether a policy with these measurements and registers would name code.
    fn registers_name_code(&self) -> bool {
        let mut policy = Policy::builder().profile(self.profile);
        for image in &self.measurements {
            policy = policy.measurements(*image);
        }
        for (index, value) in &self.pcrs {
            policy = policy.pcr(*index, *value);
        }
        policy.names_code()
    }
}

#[cfg(test)]
mod tests {
    use attestation::Measurements;

    use super::*;

    const PCR: Pcr = Pcr::new([1; 48]);

    #[test]
    fn expectations_say_what_may_run() {
        let any = Expectations::without_nonce;
        let measurements = Measurements {
            pcr0: PCR,
            pcr1: PCR,
            pcr2: PCR,
            pcr8: None,
        };
        for good in [
            any().policy("payments"),
            any().policy("payments").image("payments 1.4"),
            any().pcr(0, PCR).image("payments 1.4"),
            any().measurements(measurements),
            any().pcr(0, PCR),
            any().pcr(8, PCR).pcr(1, Pcr::ZERO),
            any().pcr(1, PCR).pcr(2, PCR),
            any().allow_any_policy(),
        ] {
            assert!(good.build().is_ok());
        }
        for silent in [
            any(),
            any().image("payments 1.4"),
            any()
                .issuer("https://verifier.example")
                .module_id("i-1-enc1"),
            any().pcr(0, Pcr::ZERO),
            any().pcr(0, PCR).pcr(0, Pcr::ZERO),
            any().pcr(1, PCR).pcr(2, PCR).pcr(2, Pcr::ZERO),
            any().pcr(0, PCR).profile(Profile::NitroTpm),
        ] {
            let error = silent.build().unwrap_err();
            assert_eq!(error, ExpectationsError::NamesNoCode);
        }
    }

    #[test]
    fn expectations_that_no_result_can_meet_are_refused() {
        let error = |builder: ExpectationsBuilder| builder.allow_any_policy().build().unwrap_err();
        for size in [0, 7, 65] {
            let nonce = vec![1; size];
            assert_eq!(
                error(Expectations::with_nonce(nonce)),
                ExpectationsError::Nonce(size)
            );
        }
        let any = Expectations::without_nonce;
        assert_eq!(error(any().pcr(32, PCR)), ExpectationsError::Pcr(32));
        let skew = MAX_CLOCK_SKEW + Duration::from_secs(1);
        assert_eq!(error(any().clock_skew(skew)), ExpectationsError::ClockSkew);
    }

    #[test]
    fn freshness_is_never_less_than_the_nonce_needs() {
        let builder = Expectations::with_nonce([1; 8]).allow_any_policy();
        let least = |builder: ExpectationsBuilder| builder.build().unwrap().freshness;
        assert_eq!(
            least(builder.clone().freshness(Freshness::None)),
            Freshness::Caller
        );
        assert_eq!(
            least(builder.freshness(Freshness::Challenge)),
            Freshness::Challenge
        );
    }
}
