//! Images that a policy allows.

use measurements::{Measurements, Pcr, TpmMeasurements};

use crate::document::Profile;

/// What an image determines, of an enclave or of an instance with a NitroTPM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageMeasurements {
    /// As `image-builder` and nitro-cli compute it.
    Enclave(Measurements),
    /// As `nitro-tpm-pcr-compute` does.
    NitroTpm(TpmMeasurements),
}

impl From<Measurements> for ImageMeasurements {
    fn from(measurements: Measurements) -> Self {
        Self::Enclave(measurements)
    }
}

impl From<TpmMeasurements> for ImageMeasurements {
    fn from(measurements: TpmMeasurements) -> Self {
        Self::NitroTpm(measurements)
    }
}

impl ImageMeasurements {
    /// The kind of document that the image shows in.
    pub fn profile(&self) -> Profile {
        match self {
            Self::Enclave(_) => Profile::Enclave,
            Self::NitroTpm(_) => Profile::NitroTpm,
        }
    }

    /// The registers that identify the image. An unsigned image's PCR8 is zero.
    pub fn pcrs(&self) -> impl Iterator<Item = (u8, Pcr)> + use<> {
        let pcrs = match *self {
            Self::Enclave(Measurements {
                pcr0,
                pcr1,
                pcr2,
                pcr8,
            }) => [
                (0, Some(pcr0)),
                (1, Some(pcr1)),
                (2, Some(pcr2)),
                (8, Some(pcr8.unwrap_or(Pcr::ZERO))),
            ],
            Self::NitroTpm(TpmMeasurements { pcr4, pcr7, pcr12 }) => {
                [(4, Some(pcr4)), (7, pcr7), (12, pcr12), (12, None)]
            }
        };
        pcrs.into_iter()
            .filter_map(|(index, value)| Some((index, value?)))
    }
}

/// An image that is allowed: its registers must be met together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Image {
    /// What people call it.
    pub(crate) name: String,
    pub(crate) measurements: ImageMeasurements,
}

impl Image {
    pub(crate) fn pcrs(&self) -> impl Iterator<Item = (u8, Pcr)> + use<> {
        self.measurements.pcrs()
    }
}
