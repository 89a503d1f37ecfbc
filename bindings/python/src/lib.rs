//! The verifier of attestation documents for Python: what
//! `python/nitro_attestation` is made of.

#![forbid(unsafe_code)]
#![allow(
    clippy::needless_pass_by_value,
    reason = "what Python gives is converted, and so owned"
)]

use std::collections::BTreeMap;
use std::path::PathBuf;

use attestation::{AuditTime, Evidence, Nonce, Roots};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// The module.
#[pymodule(gil_used = false)]
mod _native {
    #[pymodule_export]
    use super::{Claims, Policy, Verification, Verifier};
}

fn value_error(error: impl ToString) -> PyErr {
    PyValueError::new_err(error.to_string())
}

/// What a verifier demands of an enclave.
#[pyclass(frozen, module = "nitro_attestation._native")]
struct Policy(attestation::Policy);

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
    fn read(path: PathBuf) -> PyResult<Self> {
        attestation::Policy::read(&path)
            .map(Self)
            .map_err(value_error)
    }
}

/// What an accepted document says.
#[pyclass(frozen, get_all, module = "nitro_attestation._native")]
struct Claims {
    profile: String,
    module_id: String,
    timestamp_ms: u64,
    pcrs: BTreeMap<usize, Vec<u8>>,
    nonce: Option<Vec<u8>>,
    user_data: Option<Vec<u8>>,
    public_key: Option<Vec<u8>>,
}

impl From<&Evidence<'_>> for Claims {
    fn from(claims: &Evidence<'_>) -> Self {
        let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
        Self {
            profile: claims.profile().to_string(),
            module_id: claims.module_id().to_owned(),
            timestamp_ms: claims.timestamp_ms(),
            pcrs: claims
                .pcrs()
                .map(|(index, pcr)| (index, pcr.as_bytes().to_vec()))
                .collect(),
            nonce: owned(claims.nonce()),
            user_data: owned(claims.user_data()),
            public_key: owned(claims.public_key()),
        }
    }
}

/// What came of a verification.
#[pyclass(frozen, module = "nitro_attestation._native")]
struct Verification {
    /// The report, JSON.
    #[pyo3(get)]
    report: String,
    /// The first rule that was broken, and how.
    #[pyo3(get)]
    rejection: Option<(String, String)>,
    /// What the document says, if it is accepted.
    #[pyo3(get)]
    claims: Option<Py<Claims>>,
}

/// What is trusted, and the certificates that have been checked.
#[pyclass(frozen, module = "nitro_attestation._native")]
struct Verifier(attestation::Verifier);

#[pymethods]
impl Verifier {
    #[new]
    #[pyo3(signature = (roots=None))]
    fn new(roots: Option<&[u8]>) -> PyResult<Self> {
        let roots = match roots {
            None => Roots::aws(),
            Some(pem) => Roots::usable_from_pem(pem).map_err(value_error)?,
        };
        Ok(Self(attestation::Verifier::new(roots)))
    }

    /// Other threads of Python run meanwhile.
    fn verify(
        &self,
        py: Python<'_>,
        document: &[u8],
        policy: &Policy,
        nonce: Option<Vec<u8>>,
        time: When,
    ) -> PyResult<Verification> {
        let with_nonce = nonce
            .map(|nonce| policy.0.with_nonce(nonce))
            .transpose()
            .map_err(value_error)?;
        let policy = with_nonce.as_ref().unwrap_or(&policy.0);
        let (report, outcome) = py.detach(|| {
            let (report, outcome) = match time.0 {
                None => {
                    let verification = self.0.verify(document, policy, Nonce::Unchallenged);
                    let outcome = verification.outcome;
                    let claims = outcome.map(|accepted| Claims::from(&*accepted));
                    (verification.report, claims)
                }
                Some(time) => {
                    let audit = self.0.audit(document, policy, time);
                    let outcome = audit.outcome;
                    (audit.report, outcome.map(|audited| Claims::from(&*audited)))
                }
            };
            (serde_json::to_string(&report), outcome)
        });
        let (claims, rejection) = match outcome {
            Ok(claims) => (Some(Py::new(py, claims)?), None),
            Err(rejection) => (None, Some((rejection.rule.to_string(), rejection.reason))),
        };
        Ok(Verification {
            report: report.map_err(value_error)?,
            rejection,
            claims,
        })
    }
}

/// The time of checking: `"now"`, which is none of an audit's, `"document"` or
/// milliseconds since 1970.
struct When(Option<AuditTime>);

impl<'py> FromPyObject<'_, 'py> for When {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        if let Ok(milliseconds) = object.extract::<u64>() {
            return Ok(Self(Some(AuditTime::At(milliseconds))));
        }
        match object.extract::<String>().as_deref() {
            Ok("now") => Ok(Self(None)),
            Ok("document") => Ok(Self(Some(AuditTime::OfDocument))),
            _ => Err(value_error(
                "time is \"now\", \"document\" or milliseconds since 1970",
            )),
        }
    }
}
