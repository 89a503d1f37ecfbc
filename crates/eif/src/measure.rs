//! PCR values and how an image's are computed.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{Context, SHA384};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::header::SectionKind;

/// Bytes read and measured at a time.
pub(crate) const COPY_BYTES: usize = 64 * 1024;
/// Size of a SHA-384 value in bytes.
const PCR_BYTES: usize = 48;
/// Length of its text form.
const DIGITS: usize = 2 * PCR_BYTES;

/// The value of a platform configuration register: 48 bytes, written in hex.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pcr([u8; PCR_BYTES]);

/// Why a text is not a [`Pcr`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PcrError {
    /// Too long or too short.
    #[error("a PCR value has {DIGITS} hexadecimal digits, this text has {0} bytes")]
    Length(usize),
    /// A character that is not a hexadecimal digit.
    #[error("a PCR value has {DIGITS} hexadecimal digits, this text has the character {0:?}")]
    Digit(char),
}

impl Pcr {
    /// A register that nothing has been measured into.
    pub const ZERO: Self = Self([0; PCR_BYTES]);

    /// The register with these bytes.
    pub const fn new(bytes: [u8; PCR_BYTES]) -> Self {
        Self(bytes)
    }

    /// The register's bytes.
    pub const fn as_bytes(&self) -> &[u8; PCR_BYTES] {
        &self.0
    }

    /// The register after `data` has been measured into it.
    #[must_use]
    pub fn extend(self, data: &[u8]) -> Self {
        let mut context = Context::new(&SHA384);
        context.update(&self.0);
        context.update(data);
        finish(context)
    }
}

impl fmt::Display for Pcr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&hex::encode(self.0))
    }
}

impl fmt::Debug for Pcr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pcr({self})")
    }
}

impl FromStr for Pcr {
    type Err = PcrError;

    fn from_str(text: &str) -> Result<Self, PcrError> {
        let mut bytes = [0; PCR_BYTES];
        if let Some(digit) = text.chars().find(|digit| !digit.is_ascii_hexdigit()) {
            return Err(PcrError::Digit(digit));
        }
        hex::decode_to_slice(text, &mut bytes).map_err(|_| PcrError::Length(text.len()))?;
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Pcr {
    type Error = PcrError;

    fn try_from(text: String) -> Result<Self, PcrError> {
        text.parse()
    }
}

impl From<Pcr> for String {
    fn from(pcr: Pcr) -> Self {
        pcr.to_string()
    }
}

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

/// Measures contents as they pass by, in file order.
#[derive(Clone)]
pub(crate) struct Measurer {
    image: Context,
    boot: Context,
    application: Context,
    ramdisks: usize,
    target: Target,
}

#[derive(Clone, Copy)]
enum Target {
    Boot,
    Application,
    Nothing,
}

impl Measurer {
    pub(crate) fn new() -> Self {
        Self {
            image: Context::new(&SHA384),
            boot: Context::new(&SHA384),
            application: Context::new(&SHA384),
            ramdisks: 0,
            target: Target::Nothing,
        }
    }

    /// Says which section the next bytes belong to.
    pub(crate) fn section(&mut self, kind: SectionKind) {
        self.target = match kind {
            SectionKind::Kernel | SectionKind::CommandLine => Target::Boot,
            SectionKind::Ramdisk => {
                self.ramdisks += 1;
                if self.ramdisks == 1 {
                    Target::Boot
                } else {
                    Target::Application
                }
            }
            SectionKind::Signature | SectionKind::Metadata => Target::Nothing,
        };
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self.target {
            Target::Boot => self.boot.update(bytes),
            Target::Application => self.application.update(bytes),
            Target::Nothing => return,
        }
        self.image.update(bytes);
    }

    pub(crate) fn finish(self) -> Measurements {
        Measurements {
            pcr0: extend_zero(self.image),
            pcr1: extend_zero(self.boot),
            pcr2: extend_zero(self.application),
            pcr8: None,
        }
    }
}

/// The register that `contents` alone were measured into.
pub(crate) fn pcr_of(contents: &[u8]) -> Pcr {
    let mut context = Context::new(&SHA384);
    context.update(contents);
    extend_zero(context)
}

fn extend_zero(context: Context) -> Pcr {
    Pcr::ZERO.extend(finish(context).as_bytes())
}

fn finish(context: Context) -> Pcr {
    let mut bytes = [0; PCR_BYTES];
    // SHA-384 has exactly this length.
    for (to, from) in bytes.iter_mut().zip(context.finish().as_ref()) {
        *to = *from;
    }
    Pcr(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measure(sections: &[(SectionKind, &str)]) -> Measurements {
        let mut measurer = Measurer::new();
        for (kind, contents) in sections {
            measurer.section(*kind);
            measurer.update(contents.as_bytes());
        }
        measurer.finish()
    }

    #[test]
    fn each_register_measures_its_sections() {
        let measurements = measure(&[
            (SectionKind::Kernel, "k"),
            (SectionKind::CommandLine, "c"),
            (SectionKind::Metadata, "not measured"),
            (SectionKind::Ramdisk, "1"),
            (SectionKind::Ramdisk, "2"),
            (SectionKind::Ramdisk, "3"),
            (SectionKind::Signature, "not measured"),
        ]);
        assert_eq!(measurements.pcr0, pcr_of(b"kc123"));
        assert_eq!(measurements.pcr1, pcr_of(b"kc1"));
        assert_eq!(measurements.pcr2, pcr_of(b"23"));
        assert_eq!(measurements.pcr8, None);
    }

    #[test]
    fn an_absent_application_measures_as_nothing_not_as_zero() {
        let measurements = measure(&[(SectionKind::Ramdisk, "1")]);
        // printf '%096d' 0 | xxd -r -p | cat - <(sha384sum </dev/null | xxd -r -p) | sha384sum
        assert_eq!(
            measurements.pcr2.to_string(),
            "21b9efbc184807662e966d34f390821309eeac6802309798826296bf3e8bec7c\
             10edb30948c90ba67310f7b964fc500a"
        );
    }

    #[test]
    fn a_pcr_is_hex_of_either_case() {
        let text = "0aF".repeat(32);
        let pcr: Pcr = text.parse().unwrap();
        assert_eq!(pcr.to_string(), text.to_lowercase());
        assert_eq!(pcr.as_bytes()[..3], [0x0a, 0xf0, 0xaf]);
    }

    #[test]
    fn other_texts_are_not_pcrs() {
        let parse = |text: &str| text.parse::<Pcr>().unwrap_err();
        assert_eq!(parse(""), PcrError::Length(0));
        assert_eq!(parse(&"0".repeat(95)), PcrError::Length(95));
        assert_eq!(parse(&"0".repeat(98)), PcrError::Length(98));
        assert_eq!(parse(&"é".repeat(48)), PcrError::Digit('é'));
        assert_eq!(parse(&format!("{}g", "0".repeat(95))), PcrError::Digit('g'));
    }

    #[test]
    fn measurements_are_written_as_nitro_cli_does() {
        let pcr = |byte| Pcr::new([byte; PCR_BYTES]);
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
