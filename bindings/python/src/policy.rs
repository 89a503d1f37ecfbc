//! Policies.

use std::collections::BTreeMap;
use std::path::PathBuf;

use attestation::{ImageMeasurements, Measurements};
use pyo3::prelude::*;

use crate::value_error;

/// What a verifier demands of an enclave.
#[pyclass(frozen, module = "nitro_attestation._native")]
pub(crate) struct Policy(pub(crate) attestation::Policy);

#[pymethods]
impl Policy {
    #[staticmethod]
    fn from_toml(text: &str) -> PyResult<Self> {
        attestation::Policy::from_toml(text)
            .map(Self)
            .map_err(value_error)
    }

    #[staticmethod]
    fn from_json(text: &str) -> PyResult<Self> {
        attestation::Policy::from_json(text)
            .map(Self)
            .map_err(value_error)
    }

    #[staticmethod]
    #[allow(
        clippy::needless_pass_by_value,
        reason = "what Python gives is converted, and so owned"
    )]
    fn read(path: PathBuf) -> PyResult<Self> {
        attestation::Policy::read(&path)
            .map(Self)
            .map_err(value_error)
    }

    fn to_json(&self) -> PyResult<String> {
        self.0.to_json().map_err(value_error)
    }
}

/// The registers in a file of measurements, by their numbers.
#[pyfunction]
#[allow(
    clippy::needless_pass_by_value,
    reason = "what Python gives is converted, and so owned"
)]
pub(crate) fn read_measurements(path: PathBuf) -> PyResult<BTreeMap<u8, Vec<u8>>> {
    let read = attestation::read_measurements(&path).map_err(value_error)?;
    let ImageMeasurements::Enclave(Measurements {
        pcr0,
        pcr1,
        pcr2,
        pcr8,
    }) = read
    else {
        let path = path.display();
        return Err(value_error(format!(
            "{path}: the measurements are of an instance with a NitroTPM: name the file in a policy file, with profile = \"nitro-tpm\""
        )));
    };
    let registers = [(0, Some(pcr0)), (1, Some(pcr1)), (2, Some(pcr2)), (8, pcr8)];
    Ok(registers
        .into_iter()
        .filter_map(|(index, pcr)| Some((index, pcr?.as_bytes().to_vec())))
        .collect())
}
