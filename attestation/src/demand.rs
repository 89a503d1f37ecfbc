//! Whether a policy can be used: it must demand something that not every enclave
//! satisfies, and nothing that no enclave can.

use std::time::Duration;

use measurements::{PCR_COUNT, Pcr, TPM_PCR_COUNT};

use crate::document::{
    MAX_MODULE_ID, MAX_NONCE, MAX_PUBLIC_KEY, MAX_USER_DATA, Profile, is_tpm_id,
};
use crate::image::Image;
use crate::policy::{Binding, Nonce, Policy, PolicyBuilder};
use crate::policy_error::PolicyError;
use crate::purpose::Purpose;

/// Registers of an enclave that are zeros in debug mode, and never else.
const ZERO_IN_DEBUG_MODE: [u8; 3] = [0, 1, 2];
/// Registers of a NitroTPM that the firmware always measures into.
const NEVER_ZERO_IN_A_TPM: [u8; 2] = [4, 7];
/// Most that a clock may be wrong by: leaves are valid for three hours, and one that is
/// long over is not to count.
const MAX_CLOCK_SKEW: Duration = Duration::from_secs(60 * 60);
/// The shortest `max_age`: with less, a document is too old when it arrives.
const MIN_MAX_AGE: Duration = Duration::from_secs(1);

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
    if let Some(pattern) = &policy.module_id {
        check_module_id(pattern, policy.profile)?;
    }
    if policy.clock_skew > MAX_CLOCK_SKEW {
        return Err(PolicyError::ClockSkew(policy.clock_skew));
    }
    if policy.max_age < MIN_MAX_AGE {
        return Err(PolicyError::MaxAge(policy.max_age));
    }
    Ok(())
}

fn check_registers(policy: &Policy) -> Result<(), PolicyError> {
    let count = match policy.profile {
        Profile::Enclave => PCR_COUNT,
        Profile::NitroTpm => TPM_PCR_COUNT,
    };
    for (&index, values) in &policy.pcrs {
        if usize::from(index) >= count {
            return Err(PolicyError::NoSuchPcr {
                index,
                last: count - 1,
            });
        }
        if values.is_empty() {
            return Err(PolicyError::NoValue(index));
        }
        if !values.contains(&Pcr::ZERO) {
            continue;
        }
        match policy.profile {
            // Who accepts any image may well want one in debug mode.
            Profile::Enclave if policy.any_image && policy.debug_allowed => {}
            Profile::Enclave if ZERO_IN_DEBUG_MODE.contains(&index) => {
                return Err(PolicyError::ZeroRegister(index));
            }
            Profile::NitroTpm if NEVER_ZERO_IN_A_TPM.contains(&index) => {
                return Err(PolicyError::ZeroTpmRegister(index));
            }
            _ => {}
        }
    }
    check_modes(policy)
}

/// In debug mode all registers of the image are zeros, and otherwise none but PCR8.
fn check_modes(policy: &Policy) -> Result<(), PolicyError> {
    let all = |indices: &[u8], some: fn(&Pcr) -> bool| {
        let mut listed = indices.iter().filter_map(|index| policy.pcrs.get(index));
        listed.all(|values| values.iter().any(some))
    };
    let of_debug_mode = || policy.debug_allowed && all(&[0, 1, 2, 8], |value| *value == Pcr::ZERO);
    let of_no_debug_mode = all(&ZERO_IN_DEBUG_MODE, |value| *value != Pcr::ZERO);
    if policy.profile == Profile::NitroTpm || of_no_debug_mode || of_debug_mode() {
        Ok(())
    } else {
        Err(PolicyError::NoMode)
    }
}

fn check_images(policy: &Policy) -> Result<(), PolicyError> {
    if policy.any_image && !policy.images.is_empty() {
        return Err(PolicyError::AnyImageAndImages);
    }
    for image in &policy.images {
        check_image(image, policy.profile)?;
    }
    if !policy.any_image && !policy.names_code() {
        return Err(if policy.leaves_command_line_open() {
            PolicyError::OpenCommandLine
        } else {
            PolicyError::NoCode
        });
    }
    // An image that is allowed has every register that is named besides.
    let other = |image: &Image| {
        image.pcrs().find_map(|(index, value)| {
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

fn check_image(image: &Image, profile: Profile) -> Result<(), PolicyError> {
    if image.measurements.profile() != profile {
        return Err(PolicyError::ImageOfAnotherProfile {
            image: image.name.clone(),
            profile: image.measurements.profile(),
        });
    }
    let never_zero: &[u8] = match profile {
        Profile::Enclave => &ZERO_IN_DEBUG_MODE,
        Profile::NitroTpm => &NEVER_ZERO_IN_A_TPM,
    };
    let mut pcrs = image.pcrs();
    match pcrs.find(|(index, value)| never_zero.contains(index) && *value == Pcr::ZERO) {
        None => Ok(()),
        Some((index, _)) => Err(PolicyError::ZeroImage {
            image: image.name.clone(),
            index,
        }),
    }
}

fn check_tpm(policy: &Policy) -> Result<(), PolicyError> {
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

/// Some id of the profile has the pattern's form, and not every one.
fn check_module_id(pattern: &str, profile: Profile) -> Result<(), PolicyError> {
    let fixed = || pattern.bytes().filter(|byte| *byte != b'*');
    if !(1..=MAX_MODULE_ID).contains(&fixed().count()) || !fixed().all(|b| b.is_ascii_graphic()) {
        return Err(PolicyError::ModuleIdPattern);
    }
    let of_profile = match (profile, pattern.split_once('*')) {
        (Profile::Enclave, _) => !is_tpm_id(pattern),
        (Profile::NitroTpm, None) => is_tpm_id(pattern),
        (Profile::NitroTpm, Some((start, _))) => start.starts_with("i-") || "i-".starts_with(start),
    };
    if of_profile {
        Ok(())
    } else {
        Err(PolicyError::ModuleIdOfAnotherProfile(profile))
    }
}

#[cfg(test)]
mod tests {
    use measurements::{Measurements, TpmMeasurements};

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
            (Policy::builder(), PolicyError::NoCode),
            (Policy::builder().nonce(vec![1]), PolicyError::NoCode),
            (
                any.clone().measurements(image),
                PolicyError::AnyImageAndImages,
            ),
            (
                Policy::builder().pcr(32, Pcr::ZERO),
                PolicyError::NoSuchPcr {
                    index: 32,
                    last: 31,
                },
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
                    .image("1.0", image),
                PolicyError::ImageOfAnotherProfile {
                    image: "1.0".to_owned(),
                    profile: Profile::Enclave,
                },
            ),
        ] {
            assert_eq!(builder.build(), Err(error));
        }
        let hour = Duration::from_secs(3600);
        assert!(any.clone().clock_skew(hour).build().is_ok());
        let skew = hour + Duration::from_millis(1);
        let policy = any.clone().clock_skew(skew).build();
        assert_eq!(policy, Err(PolicyError::ClockSkew(skew)));
        for max_age in [Duration::ZERO, Duration::from_millis(999)] {
            let policy = any.clone().max_age(max_age).build();
            assert_eq!(policy, Err(PolicyError::MaxAge(max_age)));
        }
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
    fn a_policy_that_names_no_code_is_refused() {
        let value = Pcr::new([7; 48]);
        for index in 1..32 {
            let policy = || Policy::builder().pcr(index, value);
            let alone = policy().build();
            if index == 8 {
                assert!(alone.is_ok());
                continue;
            }
            assert_eq!(alone, Err(PolicyError::NoCode));
            let any = policy().allow_any_image().build().unwrap();
            assert!(!any.names_code());
            let image = Measurements {
                pcr1: value,
                pcr2: value,
                ..IMAGE
            };
            assert!(policy().measurements(image).build().is_ok());
        }
        assert!(Policy::builder().pcr(0, value).build().is_ok());
        let parts = Policy::builder().pcr(1, value).pcr(2, value);
        assert!(parts.build().is_ok());
        let unsigned = Policy::builder().pcr(8, Pcr::ZERO).build();
        assert_eq!(unsigned, Err(PolicyError::NoCode));
    }

    #[test]
    fn a_policy_of_a_nitro_tpm_has_its_registers_and_its_command_line() {
        let value = Pcr::new([7; 48]);
        let tpm = || Policy::builder().profile(Profile::NitroTpm);
        for index in 0..=u8::MAX {
            let policy = tpm().pcr(index, value);
            let error = match index {
                4 => PolicyError::OpenCommandLine,
                24.. => PolicyError::NoSuchPcr { index, last: 23 },
                _ => PolicyError::NoCode,
            };
            assert_eq!(policy.clone().build(), Err(error));
            let any = policy.allow_any_image().build();
            assert_eq!(any.is_ok(), index < 24);
        }
        for (index, value) in [(7, value), (12, value), (12, Pcr::ZERO)] {
            let policy = tpm().pcr(4, Pcr::new([6; 48])).pcr(index, value);
            assert!(policy.build().is_ok());
        }
        for index in [4, 7] {
            let policy = tpm().pcr(index, Pcr::ZERO).pcr(index, value);
            let error = policy.allow_any_image().build();
            assert_eq!(error, Err(PolicyError::ZeroTpmRegister(index)));
        }
        let image = TpmMeasurements {
            pcr4: value,
            pcr7: None,
            pcr12: Some(Pcr::ZERO),
        };
        assert!(tpm().measurements(image).build().is_ok());
        let other = tpm().measurements(image).pcr(12, value).build();
        assert_eq!(other, Err(PolicyError::OtherImages(12)));
        let enclave = Policy::builder().image("1.0", image).build();
        let error = PolicyError::ImageOfAnotherProfile {
            image: "1.0".to_owned(),
            profile: Profile::NitroTpm,
        };
        assert_eq!(enclave, Err(error));
        let pcr4 = Pcr::ZERO;
        let zero = tpm().image("1.0", TpmMeasurements { pcr4, ..image });
        let image = "1.0".to_owned();
        assert_eq!(
            zero.build(),
            Err(PolicyError::ZeroImage { image, index: 4 })
        );
    }

    #[test]
    fn a_policy_whose_zeros_no_enclave_has_is_refused() {
        let value = Pcr::new([7; 48]);
        let any = || Policy::builder().allow_any_image();
        for index in [0, 1, 2] {
            for policy in [any(), any().pcr(index, value)] {
                let error = policy.pcr(index, Pcr::ZERO).build();
                assert_eq!(error, Err(PolicyError::ZeroRegister(index)));
            }
            for other in [0, 1, 2, 8] {
                let policy = any().allow_debug().pcr(index, Pcr::ZERO);
                assert!(policy.clone().pcr(other, Pcr::ZERO).build().is_ok());
                if other == index {
                    continue;
                }
                let mixed = policy.clone().pcr(other, value);
                assert_eq!(mixed.build(), Err(PolicyError::NoMode));
                let either = policy.pcr(other, value).pcr(other, Pcr::ZERO);
                assert!(either.build().is_ok());
            }
        }
        let unsigned = any().allow_debug().pcr(0, value).pcr(8, Pcr::ZERO);
        assert!(unsigned.build().is_ok());
    }

    #[test]
    fn a_module_id_is_of_the_policys_profile() {
        let build = |profile, pattern: &str| {
            let policy = Policy::builder().profile(profile).module_id(pattern);
            policy.allow_any_image().build().map(|_| ())
        };
        for (pattern, enclave, tpm) in [
            ("i-1-enc2", true, false),
            ("i-1-tpm2", false, true),
            ("i-1-*", true, true),
            ("*-enc2", true, true),
            ("i*", true, true),
            ("i-*-tpm*", false, true),
            ("x-*-tpm*", true, false),
            ("enclave", true, false),
        ] {
            for (profile, expected) in [(Profile::Enclave, enclave), (Profile::NitroTpm, tpm)] {
                let error = PolicyError::ModuleIdOfAnotherProfile(profile);
                let expected = expected.then_some(()).ok_or(error);
                assert_eq!(build(profile, pattern), expected, "{pattern}");
            }
        }
        assert_eq!(
            build(Profile::Enclave, "i-1 *"),
            Err(PolicyError::ModuleIdPattern)
        );
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
            assert!(!any.names_code());
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
