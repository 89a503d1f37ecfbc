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
    if matches!(
        purpose,
        Purpose::SelfCheck | Purpose::Clock | Purpose::KeyGift
    ) && policy.public_key.is_some()
    {
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
mod tests;
