//! Verifications and audits.

use std::sync::Arc;

use attestation::{
    AuditTime, MAX_NONCE, Nonce, OwnedEvidence, Partition, Rejection, Report, Roots,
};
use pyo3::prelude::*;

use crate::claims::Claims;
use crate::policy::Policy;
use crate::value_error;

/// What came of a verification or an audit.
#[pyclass(frozen, module = "nitro_attestation._native")]
pub(crate) struct Verification {
    /// The document.
    #[pyo3(get)]
    document: Vec<u8>,
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

impl Verification {
    pub(crate) fn new(
        py: Python<'_>,
        document: Vec<u8>,
        report: &Report,
        outcome: Result<&OwnedEvidence, Rejection>,
    ) -> PyResult<Self> {
        let report = serde_json::to_string(report).map_err(value_error)?;
        let (claims, rejection) = match outcome {
            Ok(evidence) => (Some(Py::new(py, Claims::from(evidence))?), None),
            Err(rejection) => (None, Some((rejection.rule.to_string(), rejection.reason))),
        };
        Ok(Self {
            document,
            report,
            rejection,
            claims,
        })
    }
}

/// What is trusted, and the certificates that have been checked.
#[pyclass(frozen, module = "nitro_attestation._native")]
pub(crate) struct Verifier(pub(crate) Arc<attestation::Verifier>);

/// Other threads of Python run during a verification.
#[pymethods]
impl Verifier {
    #[new]
    fn new(roots: Option<&[u8]>, partitions: Vec<String>) -> PyResult<Self> {
        let mut trusted = None;
        if let Some(pem) = roots {
            trusted = Some(Roots::usable_from_pem(pem).map_err(value_error)?);
        }
        for partition in partitions {
            let partition: Partition = partition.parse().map_err(value_error)?;
            let root = Roots::partition(partition);
            trusted = Some(match trusted {
                None => root,
                Some(others) => others.and(root),
            });
        }
        let roots = trusted.ok_or_else(|| value_error("no root is trusted: name a partition"))?;
        Ok(Self(Arc::new(attestation::Verifier::new(roots))))
    }

    fn verify(
        &self,
        py: Python<'_>,
        document: &[u8],
        policy: &Policy,
        nonce: &[u8],
    ) -> PyResult<Verification> {
        if nonce.is_empty() {
            return Err(value_error(
                "the nonce is empty: draw one for each challenge",
            ));
        }
        if nonce.len() > MAX_NONCE {
            return Err(value_error(format!(
                "the nonce has {} bytes, at most {MAX_NONCE} are allowed",
                nonce.len()
            )));
        }
        self.live(py, document, policy, Nonce::Fresh(nonce))
    }

    fn verify_unchallenged(
        &self,
        py: Python<'_>,
        document: &[u8],
        policy: &Policy,
    ) -> PyResult<Verification> {
        self.live(py, document, policy, Nonce::Unchallenged)
    }

    fn audit_at(
        &self,
        py: Python<'_>,
        document: &[u8],
        policy: &Policy,
        time_ms: u64,
    ) -> PyResult<Verification> {
        self.archived(py, document, policy, AuditTime::At(time_ms))
    }

    fn audit_of_document(
        &self,
        py: Python<'_>,
        document: &[u8],
        policy: &Policy,
    ) -> PyResult<Verification> {
        self.archived(py, document, policy, AuditTime::OfDocument)
    }
}

impl Verifier {
    fn live(
        &self,
        py: Python<'_>,
        document: &[u8],
        policy: &Policy,
        nonce: Nonce<'_>,
    ) -> PyResult<Verification> {
        let (report, outcome) = py.detach(|| {
            let verification = self.0.verify(document, &policy.0, nonce);
            let outcome = verification.outcome;
            let claims = outcome.map(|accepted| OwnedEvidence::from(&*accepted));
            (verification.report, claims)
        });
        Verification::new(
            py,
            document.to_vec(),
            &report,
            outcome.as_ref().map_err(Clone::clone),
        )
    }

    fn archived(
        &self,
        py: Python<'_>,
        document: &[u8],
        policy: &Policy,
        time: AuditTime,
    ) -> PyResult<Verification> {
        let (report, outcome) = py.detach(|| {
            let audit = self.0.audit(document, &policy.0, time);
            let outcome = audit.outcome;
            let claims = outcome.map(|audited| OwnedEvidence::from(&*audited));
            (audit.report, claims)
        });
        Verification::new(
            py,
            document.to_vec(),
            &report,
            outcome.as_ref().map_err(Clone::clone),
        )
    }
}
