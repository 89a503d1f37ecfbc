//! PCR values and how an image's are computed.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{Context, SHA384};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::header::SectionKind;

/// Size of a SHA-384 value in bytes.
const PCR_BYTES: usize = 48;

/// The value of a platform configuration register: 48 bytes, written in hex.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pcr([u8; PCR_BYTES]);

/// Why a text is not a [`Pcr`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{0}` is not a PCR value: write 96 hexadecimal digits")]
pub struct PcrError(String);

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
        hex::decode_to_slice(text, &mut bytes).map_err(|_| PcrError(text.to_owned()))?;
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
    #[serde(rename = "HashAlgorithm")]
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
