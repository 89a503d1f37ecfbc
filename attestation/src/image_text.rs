//! Images as text: in policies, and in the files that builders wrote.

use std::path::PathBuf;

use measurements::{Measurements, Pcr, TpmMeasurements};
use serde::Deserialize;

use crate::image::ImageMeasurements;
use crate::policy_error::PolicyError;
use crate::text_file::Folder;
use crate::unique_keys;

/// Longest name of an image, in characters: reports, logs and signed results repeat it.
const MAX_NAME: usize = 1024;

/// An image: a file of measurements, or what is in one.
#[derive(Debug, Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "an image, which is a table, as in `{ file = \"payments.json\" }`"
)]
pub(crate) struct ImageEntry {
    name: Option<String>,
    file: Option<PathBuf>,
    #[serde(rename = "Measurements")]
    measurements: Option<Registers>,
}

/// A file of measurements. What else tools write into it does not matter.
#[derive(Debug, Deserialize)]
#[serde(expecting = "an object with `Measurements`")]
struct MeasurementsFile {
    #[serde(rename = "Measurements")]
    measurements: Registers,
}

#[derive(Debug, Deserialize)]
#[serde(try_from = "RegisterKeys")]
struct Registers(ImageMeasurements);

/// As nitro-cli and image-builder write them, and as nitro-tpm-pcr-compute does.
#[derive(Debug, Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "registers, such as PCR0, and their values"
)]
struct RegisterKeys {
    /// Without a meaning: the size of the values says which it is.
    #[serde(rename = "HashAlgorithm")]
    _hash_algorithm: Option<String>,
    #[serde(rename = "PCR0")]
    pcr0: Option<Pcr>,
    #[serde(rename = "PCR1")]
    pcr1: Option<Pcr>,
    #[serde(rename = "PCR2")]
    pcr2: Option<Pcr>,
    #[serde(rename = "PCR4")]
    pcr4: Option<Pcr>,
    #[serde(rename = "PCR7")]
    pcr7: Option<Pcr>,
    #[serde(rename = "PCR8")]
    pcr8: Option<Pcr>,
    #[serde(rename = "PCR12")]
    pcr12: Option<Pcr>,
}

impl TryFrom<RegisterKeys> for Registers {
    type Error = &'static str;

    fn try_from(keys: RegisterKeys) -> Result<Self, &'static str> {
        let of_enclave = (keys.pcr0, keys.pcr1, keys.pcr2, keys.pcr8);
        match (of_enclave, (keys.pcr4, keys.pcr7, keys.pcr12)) {
            ((Some(pcr0), Some(pcr1), Some(pcr2), pcr8), (None, None, None)) => {
                let measurements = Measurements {
                    pcr0,
                    pcr1,
                    pcr2,
                    pcr8,
                };
                Ok(Self(measurements.into()))
            }
            ((None, None, None, None), (Some(pcr4), pcr7, pcr12)) => {
                Ok(Self(TpmMeasurements { pcr4, pcr7, pcr12 }.into()))
            }
            _ => Err(
                "an enclave's image has PCR0, PCR1 and PCR2, and PCR8 if it is signed; one of a NitroTPM has PCR4, and may have PCR7 and PCR12",
            ),
        }
    }
}

impl ImageEntry {
    /// The image's name and measurements; `number` is its place in the policy.
    pub(crate) fn resolve(
        self,
        number: usize,
        folder: Folder<'_>,
    ) -> Result<(String, ImageMeasurements), PolicyError> {
        let (default_name, measurements) = match (self.file, self.measurements) {
            (Some(file), None) => {
                let read = folder.read(&file, measurements)?;
                (file.display().to_string(), read)
            }
            (None, Some(Registers(measurements))) => (format!("image {number}"), measurements),
            _ => {
                return Err(PolicyError::Text(format!(
                    "image {number}: give either `file` or `Measurements`"
                )));
            }
        };
        let name = self.name.unwrap_or(default_name);
        if name.is_empty() || plain_text::plain_start(&name, MAX_NAME) != name {
            return Err(PolicyError::Text(format!(
                "image {number}: give it a `name` of 1 to {MAX_NAME} visible characters"
            )));
        }
        Ok((name, measurements))
    }
}

/// The measurements in the text of a file.
pub(crate) fn measurements(text: &str) -> Result<ImageMeasurements, String> {
    unique_keys::check(text)
        .and_then(|()| serde_json::from_str(text))
        .map(|MeasurementsFile { measurements }| measurements.0)
        .map_err(|error| {
            format!(
                "{}: give the JSON that image-builder, nitro-cli or nitro-tpm-pcr-compute wrote",
                plain_text::plain_lines(&error.to_string())
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Policy;

    fn policy(name: &str) -> Result<Policy, PolicyError> {
        let pcr = "07".repeat(48);
        let measurements = serde_json::json!({ "PCR0": pcr, "PCR1": pcr, "PCR2": pcr });
        let image = serde_json::json!({ "name": name, "Measurements": measurements });
        Policy::from_json(&serde_json::json!({ "images": [image] }).to_string())
    }

    #[test]
    fn the_name_of_an_image_is_short_and_visible() {
        for name in ["1", "payments 1.4", "café – 2", &"x".repeat(MAX_NAME)] {
            assert!(policy(name).is_ok(), "{name}");
        }
        for name in [
            "",
            "1\n2",
            "\u{1b}[2J",
            "\u{202e}",
            &"x".repeat(MAX_NAME + 1),
        ] {
            let error = policy(name).unwrap_err().to_string();
            assert!(error.contains("image 1: give it a `name`"), "{error}");
            assert!(!error.contains(char::is_control), "{error:?}");
        }
    }

    #[test]
    fn a_policy_of_another_form_is_told_what_it_should_be_in_its_own_terms() {
        for (text, expected) in [
            ("[]", "expected a policy, which is a table"),
            (r#"{"images":[1]}"#, "expected an image, which is a table"),
            (
                r#"{"images":[{"Measurements":1}]}"#,
                "expected registers, such as PCR0",
            ),
            (
                r#"{"user_data":"00"}"#,
                "expected a table, as in `{ equal = \"00ff\" }`",
            ),
        ] {
            let error = Policy::from_json(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
