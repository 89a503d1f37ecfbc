//! The registers that an image determines.

use serde::{Deserialize, Serialize};

use crate::Pcr;

/// What an enclave started from an image will report.
///
/// Serialised as nitro-cli prints it, so that existing tools read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "NitroCli", into = "NitroCli")]
pub struct Measurements {
    /// The whole image.
    pub pcr0: Pcr,
    /// Kernel, command line and boot ramdisk.
    pub pcr1: Pcr,
    /// The application.
    pub pcr2: Pcr,
    /// The signing certificate, if the image is signed.
    pub pcr8: Option<Pcr>,
}

#[derive(Serialize, Deserialize)]
struct NitroCli {
    #[serde(rename = "Measurements")]
    measurements: NitroCliMeasurements,
}

#[derive(Serialize, Deserialize)]
struct NitroCliMeasurements {
    /// Without a meaning: nitro-cli prints what its SHA-384 library calls
    /// itself, and that changes.
    #[serde(rename = "HashAlgorithm", default)]
    hash_algorithm: String,
    #[serde(rename = "PCR0")]
    pcr0: Pcr,
    #[serde(rename = "PCR1")]
    pcr1: Pcr,
    #[serde(rename = "PCR2")]
    pcr2: Pcr,
    #[serde(rename = "PCR8", default, skip_serializing_if = "Option::is_none")]
    pcr8: Option<Pcr>,
}

impl From<Measurements> for NitroCli {
    fn from(
        Measurements {
            pcr0,
            pcr1,
            pcr2,
            pcr8,
        }: Measurements,
    ) -> Self {
        Self {
            measurements: NitroCliMeasurements {
                hash_algorithm: "Sha384 { ... }".to_owned(),
                pcr0,
                pcr1,
                pcr2,
                pcr8,
            },
        }
    }
}

impl From<NitroCli> for Measurements {
    fn from(NitroCli { measurements }: NitroCli) -> Self {
        Self {
            pcr0: measurements.pcr0,
            pcr1: measurements.pcr1,
            pcr2: measurements.pcr2,
            pcr8: measurements.pcr8,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measurements_are_written_as_nitro_cli_does() {
        let pcr = |byte| Pcr::new([byte; 48]);
        let mut measurements = Measurements {
            pcr0: pcr(0x11),
            pcr1: pcr(0x22),
            pcr2: pcr(0x33),
            pcr8: None,
        };
        let json = |measurements| serde_json::to_value(measurements).unwrap();
        let (pcr0, pcr1, pcr2) = ("11".repeat(48), "22".repeat(48), "33".repeat(48));
        assert_eq!(
            json(measurements),
            serde_json::json!({"Measurements": {
                "HashAlgorithm": "Sha384 { ... }", "PCR0": pcr0, "PCR1": pcr1, "PCR2": pcr2,
            }})
        );
        measurements.pcr8 = Some(pcr(0x88));
        let signed = json(measurements);
        assert_eq!(signed["Measurements"]["PCR8"], "88".repeat(48));
        assert_eq!(
            serde_json::from_value::<Measurements>(signed).unwrap(),
            measurements
        );
    }
}
