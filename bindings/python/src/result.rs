//! Signed results of a verification service (EAR).

use attestation_expectations::Expected;
use attestation_results::Jwks;
use pyo3::prelude::*;

use crate::value_error;

/// The keys of those whose results are believed.
#[pyclass(frozen, module = "nitro_attestation._native")]
pub(crate) struct KeySet(Jwks);

#[pymethods]
impl KeySet {
    #[new]
    fn new(json: &[u8]) -> PyResult<Self> {
        Jwks::from_json(json).map(Self).map_err(value_error)
    }
}

/// What is expected of a result.
#[pyclass(frozen, module = "nitro_attestation._native")]
pub(crate) struct Expectations(Expected);

#[pymethods]
impl Expectations {
    #[new]
    fn new(json: &str) -> PyResult<Self> {
        Expected::from_json(json).map(Self).map_err(value_error)
    }

    /// What the result says, JSON; or the first rule that it breaks, and how.
    fn verify(
        &self,
        token: &str,
        keys: &KeySet,
        nonce: &[u8],
    ) -> PyResult<(Option<String>, Option<(String, String)>)> {
        self.outcome(token, keys, Some(nonce))
    }

    fn verify_unchallenged(
        &self,
        token: &str,
        keys: &KeySet,
    ) -> PyResult<(Option<String>, Option<(String, String)>)> {
        self.outcome(token, keys, None)
    }
}

impl Expectations {
    fn outcome(
        &self,
        token: &str,
        keys: &KeySet,
        nonce: Option<&[u8]>,
    ) -> PyResult<(Option<String>, Option<(String, String)>)> {
        let outcome = self.0.verify(token, &keys.0, nonce).map_err(value_error)?;
        Ok(match outcome {
            Ok(result) => {
                let claims = serde_json::to_string(&result).map_err(value_error)?;
                (Some(claims), None)
            }
            Err(error) => (None, Some((error.rule.to_string(), error.reason))),
        })
    }
}
