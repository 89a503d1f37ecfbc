//! Whether a policy can be used: it must demand something that not every enclave
//! satisfies, and nothing that no enclave can.

use std::time::Duration;

use measurements::{PCR_COUNT, Pcr};
use thiserror::Error;

use crate::document::{MAX_MODULE_ID, MAX_NONCE, MAX_PUBLIC_KEY, MAX_USER_DATA, Profile};
use crate::policy::{Binding, Image, Nonce, Policy, PolicyBuilder};
use crate::purpose::Purpose;

/// The registers of an enclave that its image determines, and its signature. PCR3 and
/// PCR4 say whose instance it runs on, and from PCR16 on any software can extend them to
/// any value that is known.
const OF_THE_IMAGE: [u8; 4] = [0, 1, 2, 8];
/// Those of the image that are zeros in debug mode.
const ZERO_IN_DEBUG_MODE: [u8; 3] = [0, 1, 2];
/// The registers of a TPM that software cannot set back (TCG, "PC Client Platform TPM
/// Profile", section 4.6).
const OF_A_TPM: std::ops::RangeInclusive<u8> = 0..=15;
/// Most that a clock may be wrong by: leaves are valid for three hours, and one that is
/// long over is not to count.
const MAX_CLOCK_SKEW: Duration = Duration::from_secs(60 * 60);
/// The shortest `max_age`: with less, a document is too old when it arrives.
const MIN_MAX_AGE: Duration = Duration::from_secs(1);

/// Why a policy cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// No register is compared, and the policy does not say that none shall be.
    #[error(
        "the policy names no measurement, so any enclave would pass: give the measurements that image-builder wrote, or values of PCR0, PCR1, PCR2 or PCR8 (of a NitroTPM, of PCR0 to PCR15)"
    )]
    NoMeasurement,
    /// An image that nobody has measured.
    #[error(
        "{image}: PCR{index} is zeros, which is no measurement but what an enclave in debug mode says: give the measurements that image-builder wrote"
    )]
    ZeroImage {
        /// The image's name.
        image: String,
        /// The register.
        index: u8,
    },
    /// A register of the image that nobody has measured.
    #[error(
        "PCR{0} is zeros, which is no measurement but what an enclave in debug mode says: remove the value"
    )]
    ZeroRegister(u8),
    /// A register whose values no image that is allowed has.
    #[error(
        "the policy lists values for PCR{0} that none of its images has: nothing would be accepted"
    )]
    OtherImages(u8),
    /// Any image is allowed, and yet some are named.
    #[error("the policy allows any image and also names images: remove one of the two")]
    AnyImageAndImages,
    /// A register that does not exist.
    #[error("PCR{0} does not exist: registers are 0 to 31")]
    NoSuchPcr(u8),
    /// A register with an empty set of values.
    #[error("the policy lists no value for PCR{0}: nothing would be accepted")]
    NoValue(u8),
    /// Images of enclaves, for a NitroTPM whose registers mean something else.
    #[error("a policy for the profile nitro-tpm cannot name images of enclaves: give registers")]
    ImagesOfEnclaves,
    /// A debug enclave has no registers that an image could be known by, and a
    /// NitroTPM has no such mode.
    #[error("a NitroTPM has no debug mode: remove it from the policy")]
    DebugOfTpm,
    /// What `enclave-init` says of its documents, for a NitroTPM that has none.
    #[error("a policy for the profile nitro-tpm cannot demand a purpose: only enclaves say one")]
    PurposeOfTpm,
    /// A purpose that no document is known to have.
    #[error("the purpose `unknown` cannot be demanded: it says nothing about a document")]
    UnknownPurpose,
    /// User data, where the init writes it.
    #[error(
        "a document of the purpose {0} has the user_data that says so: remove user_data from the policy"
    )]
    UserDataOfTheInit(Purpose),
    /// A prefix that every value has.
    #[error("the prefix for {0} is empty: everything begins with it")]
    EmptyPrefix(&'static str),
    /// A nonce of no bytes.
    #[error(
        "the nonce is empty: it must be new for each document, so give at least 16 random bytes"
    )]
    EmptyNonce,
    /// A nonce that is known before the challenge.
    #[error(
        "the policy fixes a nonce, which must be new for each document: write nonce = \"required\", and give it with each challenge"
    )]
    FixedNonce,
    /// A key of no bytes.
    #[error("the public_key is empty, and no document has an empty one: remove it")]
    EmptyKey,
    /// A key in a document that holds none.
    #[error("a document of the purpose {0} holds no public_key: remove it from the policy")]
    KeyOfTheInit(Purpose),
    /// User data that says another purpose.
    #[error(
        "no document of the purpose workload has a user_data that begins with `enclave-purpose:`: remove one of the two"
    )]
    ReservedUserData,
    /// An age that no document has.
    #[error(
        "max_age is {} ms, and a document is older when it arrives: give at least 1s",
        .0.as_millis()
    )]
    MaxAge(Duration),
    /// A clock that shows hardly anything.
    #[error(
        "clock_skew is {} s, and certificates are valid for hours: give at most 1h, and set the clock",
        .0.as_secs()
    )]
    ClockSkew(Duration),
    /// Something is added to the policy that it contradicts.
    #[error("{name}: the policy says {policy}, and {added} would replace it: {advice}")]
    Contradiction {
        /// The demand.
        name: &'static str,
        /// What the policy says.
        policy: String,
        /// What was to be added.
        added: String,
        /// What to do.
        advice: &'static str,
    },
    /// A pattern that no id, or every id, has.
    #[error(
        "the module id's pattern is empty, only `*`, or has what no id has: ids are at most {MAX_MODULE_ID} printable ASCII characters; write it as `i-0123456789abcdef0-enc*`"
    )]
    ModuleIdPattern,
    /// A value longer than documents can carry.
    #[error("the value for {name} is longer than the {limit} bytes that a document can carry")]
    NeverMet {
        /// The document's field.
        name: &'static str,
        /// Most bytes that it has.
        limit: usize,
    },
    /// A policy's text that is not a policy.
    #[error("{0}")]
    Text(String),
    /// A file that cannot be read or used.
    #[error("{file}: {reason}")]
    File {
        /// The file.
        file: String,
        /// What is wrong, where, and what to do.
        reason: String,
    },
}

impl PolicyBuilder {
    /// The policy, if it demands something that not every enclave satisfies, and
    /// nothing that none can.
    pub fn build(self) -> Result<Policy, PolicyError> {
        let policy = self.into_policy();
        check(&policy)?;
        Ok(policy)
    }
}

impl Policy {
    /// Whether only some software is accepted: images are named, or values of a register
    /// that says what runs.
    pub fn names_measurement(&self) -> bool {
        let says_what_runs = |index: u8| match self.profile {
            Profile::Enclave => OF_THE_IMAGE.contains(&index),
            Profile::NitroTpm => OF_A_TPM.contains(&index),
        };
        let mut pcrs = self.pcrs.iter();
        !self.images.is_empty()
            || pcrs.any(|(&index, values)| says_what_runs(index) && !values.contains(&Pcr::ZERO))
    }

    /// The policy with the nonce of this challenge. One that has a nonce already is
    /// refused: it would not be this challenge's.
    pub fn with_nonce(&self, nonce: Vec<u8>) -> Result<Self, PolicyError> {
        if self.fixes_nonce() {
            return Err(PolicyError::FixedNonce);
        }
        self.to_builder().nonce(nonce).build()
    }
}

/// Checks that something can satisfy the policy, and not everything does.
fn check(policy: &Policy) -> Result<(), PolicyError> {
    check_registers(policy)?;
    check_images(policy)?;
    if policy.profile == Profile::NitroTpm {
        check_tpm(policy)?;
    }
    match &policy.nonce {
        Nonce::Equal(nonce) if nonce.is_empty() => return Err(PolicyError::EmptyNonce),
        Nonce::Equal(nonce) if nonce.len() > MAX_NONCE => {
            return Err(PolicyError::NeverMet {
                name: "nonce",
                limit: MAX_NONCE,
            });
        }
        _ => {}
    }
    if let Some(binding) = &policy.user_data {
        check_binding(binding, "user_data", MAX_USER_DATA)?;
    }
    if let Some(binding) = &policy.public_key {
        check_binding(binding, "public_key", MAX_PUBLIC_KEY)?;
        if *binding == Binding::Equal(Vec::new()) {
            return Err(PolicyError::EmptyKey);
        }
    }
    check_purpose(policy)?;
    if policy
        .module_id
        .as_deref()
        .is_some_and(|id| !is_pattern(id))
    {
        return Err(PolicyError::ModuleIdPattern);
    }
    if policy.max_age < MIN_MAX_AGE {
        return Err(PolicyError::MaxAge(policy.max_age));
    }
    if policy.clock_skew > MAX_CLOCK_SKEW {
        return Err(PolicyError::ClockSkew(policy.clock_skew));
    }
    Ok(())
}

fn check_registers(policy: &Policy) -> Result<(), PolicyError> {
    for (&index, values) in &policy.pcrs {
        if usize::from(index) >= PCR_COUNT {
            return Err(PolicyError::NoSuchPcr(index));
        }
        if values.is_empty() {
            return Err(PolicyError::NoValue(index));
        }
        // Who accepts any image may well want one in debug mode.
        if policy.profile == Profile::Enclave
            && !policy.any_image
            && ZERO_IN_DEBUG_MODE.contains(&index)
            && values.contains(&Pcr::ZERO)
        {
            return Err(PolicyError::ZeroRegister(index));
        }
    }
    Ok(())
}

fn check_images(policy: &Policy) -> Result<(), PolicyError> {
    if !policy.any_image && !policy.names_measurement() {
        return Err(PolicyError::NoMeasurement);
    }
    if policy.any_image && !policy.images.is_empty() {
        return Err(PolicyError::AnyImageAndImages);
    }
    for image in &policy.images {
        let mut pcrs = image.pcrs().into_iter();
        let zero =
            pcrs.find(|(index, value)| ZERO_IN_DEBUG_MODE.contains(index) && *value == Pcr::ZERO);
        if let Some((index, _)) = zero {
            return Err(PolicyError::ZeroImage {
                image: image.name.clone(),
                index,
            });
        }
    }
    // An image that is allowed has every register that is named besides.
    let other = |image: &Image| {
        image.pcrs().into_iter().find_map(|(index, value)| {
            let values = policy.pcrs.get(&index)?;
            (!values.contains(&value)).then_some(index)
        })
    };
    let others: Option<Vec<u8>> = policy.images.iter().map(other).collect();
    match others.as_deref() {
        Some([index, ..]) => Err(PolicyError::OtherImages(*index)),
        _ => Ok(()),
    }
}

fn check_tpm(policy: &Policy) -> Result<(), PolicyError> {
    if !policy.images.is_empty() {
        return Err(PolicyError::ImagesOfEnclaves);
    }
    if policy.debug_allowed {
        return Err(PolicyError::DebugOfTpm);
    }
    if policy.purpose.is_some() {
        return Err(PolicyError::PurposeOfTpm);
    }
    Ok(())
}

fn check_purpose(policy: &Policy) -> Result<(), PolicyError> {
    let Some(purpose) = policy.purpose else {
        return Ok(());
    };
    if purpose == Purpose::Unknown {
        return Err(PolicyError::UnknownPurpose);
    }
    if purpose.user_data().is_some() && policy.user_data.is_some() {
        return Err(PolicyError::UserDataOfTheInit(purpose));
    }
    if matches!(purpose, Purpose::SelfCheck | Purpose::Clock) && policy.public_key.is_some() {
        return Err(PolicyError::KeyOfTheInit(purpose));
    }
    if let Some(Binding::Equal(bytes) | Binding::Prefix(bytes)) = &policy.user_data
        && Purpose::of(Some(bytes)) != Purpose::Workload
    {
        return Err(PolicyError::ReservedUserData);
    }
    Ok(())
}

fn check_binding(binding: &Binding, name: &'static str, limit: usize) -> Result<(), PolicyError> {
    match binding {
        Binding::Prefix(bytes) if bytes.is_empty() => Err(PolicyError::EmptyPrefix(name)),
        Binding::Equal(bytes) | Binding::Prefix(bytes) if bytes.len() > limit => {
            Err(PolicyError::NeverMet { name, limit })
        }
        _ => Ok(()),
    }
}

/// Whether some id has the pattern's form, and not every one.
fn is_pattern(pattern: &str) -> bool {
    let fixed = || pattern.bytes().filter(|byte| *byte != b'*');
    (1..=MAX_MODULE_ID).contains(&fixed().count())
        && fixed().all(|byte| byte == b' ' || byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use measurements::Measurements;

    use super::*;

    const IMAGE: Measurements = Measurements {
        pcr0: Pcr::new([1; 48]),
        pcr1: Pcr::new([2; 48]),
        pcr2: Pcr::new([3; 48]),
        pcr8: None,
    };

    #[test]
    fn a_policy_that_demands_nothing_or_the_impossible_is_refused() {
        let image = IMAGE;
        let any = Policy::builder().allow_any_image();
        let tpm = any.clone().profile(Profile::NitroTpm);
        for (builder, error) in [
            (Policy::builder(), PolicyError::NoMeasurement),
            (Policy::builder().nonce(vec![1]), PolicyError::NoMeasurement),
            (
                any.clone().measurements(image),
                PolicyError::AnyImageAndImages,
            ),
            (
                Policy::builder().pcr(32, Pcr::ZERO),
                PolicyError::NoSuchPcr(32),
            ),
            (any.clone().nonce(Vec::new()), PolicyError::EmptyNonce),
            (
                any.clone().nonce(vec![0; 1025]),
                PolicyError::NeverMet {
                    name: "nonce",
                    limit: 1024,
                },
            ),
            (
                any.clone().bind_user_data(Binding::Prefix(Vec::new())),
                PolicyError::EmptyPrefix("user_data"),
            ),
            (
                any.clone().public_key(vec![0; 1025]),
                PolicyError::NeverMet {
                    name: "public_key",
                    limit: 1024,
                },
            ),
            (any.clone().module_id("**"), PolicyError::ModuleIdPattern),
            (any.clone().module_id(""), PolicyError::ModuleIdPattern),
            (
                any.clone().module_id("i-1\n*"),
                PolicyError::ModuleIdPattern,
            ),
            (
                any.clone().module_id(format!("{}*", "i".repeat(256))),
                PolicyError::ModuleIdPattern,
            ),
            (tpm.clone().allow_debug(), PolicyError::DebugOfTpm),
            (
                tpm.clone().purpose(Purpose::Workload),
                PolicyError::PurposeOfTpm,
            ),
            (
                any.clone().purpose(Purpose::Unknown),
                PolicyError::UnknownPurpose,
            ),
            (
                any.clone()
                    .purpose(Purpose::SelfCheck)
                    .user_data(b"enclave-purpose:self-check".to_vec()),
                PolicyError::UserDataOfTheInit(Purpose::SelfCheck),
            ),
            (
                Policy::builder()
                    .profile(Profile::NitroTpm)
                    .measurements(image),
                PolicyError::ImagesOfEnclaves,
            ),
        ] {
            assert_eq!(builder.build(), Err(error));
        }
        for max_age in [Duration::ZERO, Duration::from_millis(999)] {
            let policy = any.clone().max_age(max_age).build();
            assert_eq!(policy, Err(PolicyError::MaxAge(max_age)));
        }
        let hour = Duration::from_secs(3600);
        assert!(any.clone().clock_skew(hour).build().is_ok());
        let skew = hour + Duration::from_millis(1);
        let policy = any.clone().clock_skew(skew).build();
        assert_eq!(policy, Err(PolicyError::ClockSkew(skew)));
        for (builder, error) in [
            (any.clone().public_key(Vec::new()), PolicyError::EmptyKey),
            (
                any.clone().purpose(Purpose::Clock).public_key(vec![1]),
                PolicyError::KeyOfTheInit(Purpose::Clock),
            ),
            (
                any.clone()
                    .purpose(Purpose::Workload)
                    .bind_user_data(Binding::Prefix(b"enclave-purpose:c".to_vec())),
                PolicyError::ReservedUserData,
            ),
        ] {
            assert_eq!(builder.build(), Err(error));
        }
        assert!(any.build().is_ok());
        assert!(tpm.build().is_ok());
    }

    #[test]
    fn a_policy_of_registers_that_any_image_can_have_is_refused() {
        let value = Pcr::new([7; 48]);
        for index in [0, 1, 2, 8] {
            assert!(Policy::builder().pcr(index, value).build().is_ok());
        }
        for index in (3..8).chain(9..32) {
            let policy = || Policy::builder().pcr(index, value);
            assert_eq!(policy().build(), Err(PolicyError::NoMeasurement));
            let any = policy().allow_any_image().build().unwrap();
            assert!(!any.names_measurement());
            assert!(policy().measurements(IMAGE).build().is_ok());
            let tpm = policy().profile(Profile::NitroTpm).build();
            assert_eq!(tpm.is_ok(), index < 16);
        }
        let unsigned = Policy::builder().pcr(8, Pcr::ZERO).build();
        assert_eq!(unsigned, Err(PolicyError::NoMeasurement));
    }

    #[test]
    fn a_policy_of_zeros_is_refused() {
        for index in [0, 1, 2] {
            let policy = || {
                let policy = Policy::builder().pcr(index, Pcr::ZERO);
                policy.pcr(index, Pcr::new([7; 48]))
            };
            for policy in [
                policy(),
                policy().allow_debug(),
                policy().measurements(IMAGE),
            ] {
                assert_eq!(policy.build(), Err(PolicyError::ZeroRegister(index)));
            }
            let any = policy().allow_any_image().allow_debug().build().unwrap();
            assert!(!any.names_measurement());
            let mut image = IMAGE;
            let register = match index {
                0 => &mut image.pcr0,
                1 => &mut image.pcr1,
                _ => &mut image.pcr2,
            };
            *register = Pcr::ZERO;
            for policy in [Policy::builder(), Policy::builder().allow_debug()] {
                let error = policy.image("1.0", image).build().unwrap_err();
                let image = "1.0".to_owned();
                assert_eq!(error, PolicyError::ZeroImage { image, index });
            }
        }
    }

    #[test]
    fn a_policy_whose_registers_none_of_its_images_has_is_refused() {
        let other = Measurements {
            pcr0: Pcr::new([9; 48]),
            ..IMAGE
        };
        let both = || Policy::builder().measurements(IMAGE).measurements(other);
        assert!(both().pcr(0, other.pcr0).build().is_ok());
        let none = both().pcr(0, other.pcr1).build();
        assert_eq!(none, Err(PolicyError::OtherImages(0)));
        let signed = both().pcr(8, other.pcr1).build();
        assert_eq!(signed, Err(PolicyError::OtherImages(8)));
    }

    #[test]
    fn a_policy_that_fixes_a_nonce_takes_no_other() {
        let policy = Policy::builder().measurements(IMAGE).nonce(vec![1]);
        let policy = policy.build().unwrap();
        assert!(policy.fixes_nonce());
        assert_eq!(policy.with_nonce(vec![1]), Err(PolicyError::FixedNonce));
        let policy = Policy::builder().measurements(IMAGE).build().unwrap();
        assert!(policy.with_nonce(vec![1]).unwrap().fixes_nonce());
    }
}
