//! A policy written as JSON.

use std::collections::BTreeMap;
use std::time::Duration;

use measurements::Pcr;
use serde::Serialize;

use crate::document::Profile;
use crate::image::{Image, ImageMeasurements};
use crate::policy::{Binding, Nonce, Policy};
use crate::policy_error::PolicyError;
use crate::purpose::Purpose;

impl Policy {
    /// The policy as a JSON text that [`from_json`](Self::from_json) reads back:
    /// the same for equal policies, with every default and every measurement
    /// written out.
    pub fn to_json(&self) -> Result<String, PolicyError> {
        serde_json::to_string(&PolicyText::of(self))
            .map_err(|error| PolicyError::Text(error.to_string()))
    }
}

/// A policy in its file's terms, to be written.
#[derive(Serialize)]
struct PolicyText<'p> {
    profile: Profile,
    images: Vec<ImageText<'p>>,
    allow_any_image: bool,
    allow_debug: bool,
    pcrs: BTreeMap<u8, &'p [Pcr]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nonce: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    purpose: Option<Purpose>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_data: Option<BindingText>,
    #[serde(skip_serializing_if = "Option::is_none")]
    public_key: Option<BindingText>,
    #[serde(skip_serializing_if = "Option::is_none")]
    module_id: Option<&'p str>,
    max_age: String,
    clock_skew: String,
    strict_keys: bool,
}

#[derive(Serialize)]
struct ImageText<'p> {
    name: &'p str,
    #[serde(rename = "Measurements")]
    measurements: BTreeMap<String, Pcr>,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum BindingText {
    Equal(String),
    Sha256Of(String),
    Sha384Of(String),
    Prefix(String),
}

impl From<&Binding> for BindingText {
    fn from(binding: &Binding) -> Self {
        match binding {
            Binding::Equal(bytes) => Self::Equal(hex::encode(bytes)),
            Binding::Sha256Of(bytes) => Self::Sha256Of(hex::encode(bytes)),
            Binding::Sha384Of(bytes) => Self::Sha384Of(hex::encode(bytes)),
            Binding::Prefix(bytes) => Self::Prefix(hex::encode(bytes)),
        }
    }
}

impl<'p> PolicyText<'p> {
    fn of(policy: &'p Policy) -> Self {
        // Every field by name: one that were left out would make the policy weaker.
        let Policy {
            profile,
            images,
            any_image,
            pcrs,
            nonce,
            purpose,
            user_data,
            public_key,
            module_id,
            max_age,
            clock_skew,
            debug_allowed,
            strict_keys,
        } = policy;
        let milliseconds = |duration: &Duration| format!("{}ms", duration.as_millis());
        Self {
            profile: *profile,
            images: images
                .iter()
                .map(|Image { name, measurements }| ImageText {
                    name,
                    measurements: registers(measurements),
                })
                .collect(),
            allow_any_image: *any_image,
            allow_debug: *debug_allowed,
            pcrs: pcrs
                .iter()
                .map(|(&index, values)| (index, values.as_slice()))
                .collect(),
            nonce: match nonce {
                Nonce::NotChecked => None,
                Nonce::Required => Some("required".to_owned()),
                Nonce::Equal(nonce) => Some(hex::encode(nonce)),
            },
            purpose: *purpose,
            user_data: user_data.as_ref().map(BindingText::from),
            public_key: public_key.as_ref().map(BindingText::from),
            module_id: module_id.as_deref(),
            max_age: milliseconds(max_age),
            clock_skew: milliseconds(clock_skew),
            strict_keys: *strict_keys,
        }
    }
}

/// The registers under the names that files of measurements have for them. An unsigned
/// image has no PCR8 there.
fn registers(measurements: &ImageMeasurements) -> BTreeMap<String, Pcr> {
    let pcrs = measurements.pcrs();
    let pcrs = pcrs.filter(|(index, value)| (*index, *value) != (8, Pcr::ZERO));
    pcrs.map(|(index, value)| (format!("PCR{index}"), value))
        .collect()
}

#[cfg(test)]
mod tests {
    use measurements::{Measurements, TpmMeasurements};

    use super::*;

    #[test]
    fn a_policy_that_is_written_reads_back() {
        let image = |fill| Measurements {
            pcr0: Pcr::new([fill; 48]),
            pcr1: Pcr::new([2; 48]),
            pcr2: Pcr::new([3; 48]),
            pcr8: (fill == 1).then_some(Pcr::new([8; 48])),
        };
        let every = Policy::builder()
            .image("release \"2\"", image(1))
            .image("release 1", image(4))
            .pcr(16, Pcr::new([5; 48]))
            .pcr(16, Pcr::new([6; 48]))
            .pcr(3, Pcr::ZERO)
            .require_nonce()
            .purpose(Purpose::Workload)
            .bind_user_data(Binding::Prefix(vec![1, 2]))
            .bind_public_key(Binding::Sha256Of(vec![3]))
            .module_id("i-*-enc*")
            .max_age(Duration::from_millis(90_001))
            .clock_skew(Duration::ZERO)
            .strict_keys()
            .allow_debug();
        let any = Policy::builder().allow_any_image();
        let tpm = |pcr7, pcr12| TpmMeasurements {
            pcr4: Pcr::new([4; 48]),
            pcr7,
            pcr12,
        };
        let of_tpm = Policy::builder()
            .profile(Profile::NitroTpm)
            .image("one", tpm(None, Some(Pcr::ZERO)))
            .image("two", tpm(Some(Pcr::new([7; 48])), None));
        for builder in [
            every,
            of_tpm,
            any.clone(),
            any.clone().nonce(vec![0xff; 32]),
            any.clone().profile(Profile::NitroTpm),
            any.clone().purpose(Purpose::RelayedChallenge),
            any.clone().purpose(Purpose::SelfCheck),
            any.clone()
                .user_data(vec![])
                .bind_public_key(Binding::Sha384Of(vec![9])),
        ] {
            let policy = builder.build().unwrap();
            let text = policy.to_json().unwrap();
            let again = Policy::from_json(&text).unwrap();
            assert_eq!(again, policy, "{text}");
            assert_eq!(again.to_json().unwrap(), text);
        }
    }
}
