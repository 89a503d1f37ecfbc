//! Challenges of live enclaves.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use attestation_client::{Attestation, Endpoint, Trust};
use pyo3::create_exception;
use pyo3::exceptions::PyException;
use pyo3::prelude::*;

use crate::policy::Policy;
use crate::value_error;
use crate::verifier::{Verification, Verifier};

/// How often it is looked whether the caller has given up.
const LOOK_UP: Duration = Duration::from_millis(50);

create_exception!(
    nitro_attestation._native,
    FetchError,
    PyException,
    "No document was received, so there was nothing to verify."
);

/// Challenges enclaves.
#[pyclass(frozen, module = "nitro_attestation._native")]
pub(crate) struct Client(Arc<attestation_client::Client>);

#[pymethods]
impl Client {
    /// `bind_tls` is whether the key of the endpoint's own TLS server is bound, or the
    /// server whose key is.
    #[new]
    fn new(
        verifier: &Verifier,
        timeout_ms: u64,
        ca: Option<&[u8]>,
        bind_tls: BindTls,
    ) -> PyResult<Self> {
        let mut client = attestation_client::Client::new(Arc::clone(&verifier.0))
            .timeout(Duration::from_millis(timeout_ms));
        client = match (ca, bind_tls) {
            (None, BindTls::Endpoint(false)) => client,
            (Some(pem), BindTls::Endpoint(false)) => {
                client.trust(Trust::from_pem(pem).map_err(value_error)?)
            }
            (None, BindTls::Endpoint(true)) => client.trust(Trust::attested_key()),
            (None, BindTls::Server(server)) => {
                client.bind_tls(server.parse().map_err(value_error)?)
            }
            (Some(_), _) => {
                return Err(value_error(
                    "ca and bind_tls exclude each other: with bind_tls, the document vouches for the server",
                ));
            }
        };
        Ok(Self(Arc::new(client)))
    }

    /// A challenge that is yet to be run.
    fn fetch(&self, endpoint: &str, policy: &Policy) -> PyResult<Fetch> {
        Ok(Fetch {
            client: Arc::clone(&self.0),
            endpoint: endpoint.parse().map_err(value_error)?,
            policy: policy.0.clone(),
            cancelled: AtomicBool::new(false),
        })
    }
}

/// Whose TLS key is bound.
#[derive(FromPyObject)]
enum BindTls {
    Endpoint(bool),
    Server(String),
}

/// One challenge.
#[pyclass(frozen, module = "nitro_attestation._native")]
pub(crate) struct Fetch {
    client: Arc<attestation_client::Client>,
    endpoint: Endpoint,
    policy: attestation::Policy,
    cancelled: AtomicBool,
}

#[pymethods]
impl Fetch {
    /// Asks for the document and verifies it. Other threads of Python run meanwhile, and
    /// signals are handled.
    fn run(&self, py: Python<'_>) -> PyResult<Verification> {
        let attestation = py.detach(|| self.attest())?;
        let claims = attestation.outcome.as_deref();
        Verification::new(
            py,
            attestation.document,
            &attestation.report,
            claims.map_err(Clone::clone),
        )
    }

    /// Ends `run` soon, in whatever thread it runs.
    fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }
}

impl Fetch {
    fn attest(&self) -> PyResult<Attestation> {
        // One for each challenge: it survives a fork, and leaves no thread behind.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| FetchError::new_err(format!("there is no runtime: {error}")))?;
        let attestation = runtime.block_on(async {
            let mut attest = pin!(self.client.attest(&self.endpoint, &self.policy));
            loop {
                if self.cancelled.load(Ordering::Relaxed) {
                    return Err(FetchError::new_err("the challenge was cancelled"));
                }
                match tokio::time::timeout(LOOK_UP, &mut attest).await {
                    Ok(Ok(attestation)) => return Ok(attestation),
                    Ok(Err(error)) => return Err(to_python(error)),
                    Err(_) => Python::attach(|py| py.check_signals())?,
                }
            }
        });
        runtime.shutdown_background();
        attestation
    }
}

fn to_python(error: attestation_client::FetchError) -> PyErr {
    match error {
        // The caller's own arguments.
        attestation_client::FetchError::Policy(_)
        | attestation_client::FetchError::NoTls(_)
        | attestation_client::FetchError::TwoServers(_) => value_error(error),
        error => FetchError::new_err(error.to_string()),
    }
}
