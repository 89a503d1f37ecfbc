//! The client of a live enclave: it makes a challenge, and verifies the answer.
//!
//! ```
//! use attestation::client::{Client, Endpoint};
//! use attestation::{Policy, Roots, Verifier};
//!
//! # #[cfg(feature = "nsm")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # use software_nsm::{Identity, SoftwareNsm, TestRoot, serve};
//! # let folder = tempfile::tempdir()?;
//! # let socket = folder.path().join("nsm");
//! # let pcr = measurements::Pcr::new([7; 48]);
//! # let measurements = measurements::Measurements { pcr0: pcr, pcr1: pcr, pcr2: pcr, pcr8: None };
//! # let root = TestRoot::generate()?;
//! # let root_pem = root.certificate_pem().to_owned();
//! # let identity = Identity {
//! #     instance_id: "i-00000000000000000".to_owned(),
//! #     enclave_id: "enc0000000000000000".to_owned(),
//! #     measurements: Some(measurements),
//! # };
//! # let listener = tokio::net::UnixListener::bind(&socket)?;
//! # tokio::spawn(serve(listener, SoftwareNsm::new(identity, root)?));
//! // Roots::aws() for an enclave on AWS; this one is of the software NSM.
//! let client = Client::new(Verifier::new(Roots::from_pem(root_pem.as_bytes())?));
//! let endpoint: Endpoint = format!("nsm:{}", socket.display()).parse()?;
//! let policy = Policy::builder().measurements(measurements).build()?;
//!
//! let attestation = client.attest(&endpoint, &policy).await?;
//! let claims = attestation.outcome?;
//! println!("{} runs the image", claims.module_id());
//! # assert_eq!(claims.nonce(), Some(attestation.nonce.as_slice()));
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "nsm"))]
//! # fn main() {}
//! ```

mod dial;
mod encoding;
mod endpoint;
mod http;
#[cfg(feature = "nsm")]
mod module;
mod tls;
mod tls_server;

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use thiserror::Error;
use tokio::time::timeout;

use crate::claims::VerifiedClaims;
use crate::demand::PolicyError;
use crate::policy::{Binding, Policy};
use crate::report::Report;
use crate::rule::Rejection;
use crate::verify::{Time, Verifier};

pub use encoding::{DecodeError, MAX_ENCODED, decode_document};
pub use endpoint::{Endpoint, EndpointError};
use tls::Tls;
pub use tls::{Trust, TrustError};
pub use tls_server::TlsServer;

/// Bytes of the nonce of a challenge.
pub const NONCE_BYTES: usize = 32;
/// How long a document may take, from the look-up of a name to the last byte,
/// unless told otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(20);

/// Challenges enclaves and verifies their documents.
///
/// A client is shared between tasks by reference. Verification takes about a
/// millisecond of a processor at most, and happens on tokio's threads for
/// blocking work, so a runtime must be there, with its timer and its I/O.
#[derive(Debug)]
pub struct Client {
    verifier: Arc<Verifier>,
    tls: Tls,
    /// The server for whose key the document is to vouch, besides the endpoint.
    server: Option<TlsServer>,
    timeout: Duration,
}

/// A live enclave's answer to a challenge.
#[derive(Debug)]
#[non_exhaustive]
pub struct Attestation {
    /// The document, as the enclave gave it.
    pub document: Vec<u8>,
    /// The nonce of the challenge: new, from the system's random generator, and
    /// used for nothing else.
    pub nonce: Vec<u8>,
    /// Every check.
    pub report: Report,
    /// What the accepted document says, or the first rule that it broke.
    pub outcome: Result<VerifiedClaims, Rejection>,
}

/// Why there is no document to verify.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FetchError {
    /// Nobody answered in time.
    #[error("{endpoint} gave no document within {} s", timeout.as_secs_f32())]
    TimedOut {
        /// Who was asked.
        endpoint: String,
        /// How long it had.
        timeout: Duration,
    },
    /// The host's name leads nowhere.
    #[error("{host} cannot be resolved: {reason}")]
    Name {
        /// The name.
        host: String,
        /// Why.
        reason: String,
    },
    /// Nobody listens.
    #[error("{endpoint} cannot be reached: {reason}")]
    Connect {
        /// Who was to be asked.
        endpoint: String,
        /// Why.
        reason: String,
    },
    /// The connection is not the host's, or TLS failed otherwise.
    #[error("TLS with {host} failed: {reason}")]
    Tls {
        /// The name.
        host: String,
        /// Why.
        reason: String,
    },
    /// The answer is not HTTP, or it breaks off.
    #[error("{endpoint} gave no proper answer: {reason}")]
    Exchange {
        /// Who was asked.
        endpoint: String,
        /// Why.
        reason: String,
    },
    /// The server sends elsewhere.
    #[error("{endpoint} redirects to {location}; if you mean that, ask there")]
    Redirected {
        /// Who was asked.
        endpoint: String,
        /// Where it sends.
        location: String,
    },
    /// The server refuses.
    #[error("{endpoint} refused with status {status}: {reason}")]
    Refused {
        /// Who was asked.
        endpoint: String,
        /// The HTTP status.
        status: u16,
        /// What it says of the reason.
        reason: String,
    },
    /// The answer is not a document in any known encoding.
    #[error("{endpoint} answered no document: {source}")]
    NoDocument {
        /// Who was asked.
        endpoint: String,
        /// Why.
        source: DecodeError,
    },
    /// The module refused.
    #[cfg(feature = "nsm")]
    #[error(transparent)]
    Nsm(#[from] nsm::NsmError),
    /// A certificate's key is to be attested, where there is no TLS.
    #[error(
        "{0} is not https, so there is no TLS key that the document could bind: name the enclave's TLS server"
    )]
    NoTls(String),
    /// A TLS server is named, where the endpoint is one itself.
    #[error("{0} is asked over its own connection, whose key is bound: name no other TLS server")]
    TwoServers(String),
    /// The policy cannot be used for a challenge.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The policy and the TLS server want different keys.
    #[error(
        "{0} serves TLS with another key than the policy demands as public_key, so no document satisfies both: is this the right server?"
    )]
    OtherKey(String),
    /// This machine cannot make a challenge, or cannot verify.
    #[error("the challenge failed on this side: {0}")]
    Local(String),
}

/// What came from an endpoint.
struct Answer {
    document: Vec<u8>,
    /// The `SubjectPublicKeyInfo` of the server's certificate, DER.
    server_key: Option<Vec<u8>>,
}

impl Client {
    /// A client that decides by this verifier, and believes a TLS server if the
    /// system's certificate authorities vouch for it.
    pub fn new(verifier: impl Into<Arc<Verifier>>) -> Self {
        Self {
            verifier: verifier.into(),
            tls: Tls::new(Trust::system()),
            server: None,
            timeout: DEFAULT_TIMEOUT,
        }
    }

    /// Believes TLS servers by this instead.
    #[must_use]
    pub fn trust(mut self, trust: Trust) -> Self {
        self.tls = Tls::new(trust);
        self
    }

    /// Demands that `public_key` is the key of this TLS server: for a document that a
    /// `parent-agent` relays, while the enclave itself serves TLS under its identity
    /// key. The server's certificate may be of anybody.
    #[must_use]
    pub fn bind_tls(mut self, server: TlsServer) -> Self {
        self.tls = Tls::new(Trust::attested_key());
        self.server = Some(server);
        self
    }

    /// How long a document may take; [`DEFAULT_TIMEOUT`] unless said.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Challenges the enclave with a new nonce, and verifies its document now. A
    /// policy that fixes another nonce is refused. Under [`Trust::attested_key`] the
    /// policy demands, too, that `public_key` is the TLS server's.
    ///
    /// Dropped before its end, it leaves nothing behind.
    pub async fn attest(
        &self,
        endpoint: &Endpoint,
        policy: &Policy,
    ) -> Result<Attestation, FetchError> {
        if policy.fixes_nonce() {
            return Err(PolicyError::FixedNonce.into());
        }
        let mut nonce = vec![0; NONCE_BYTES];
        SystemRandom::new()
            .fill(&mut nonce)
            .map_err(|_| FetchError::Local("there are no random bytes".to_owned()))?;
        let answer = timeout(self.timeout, self.fetch(endpoint, &nonce))
            .await
            .unwrap_or_else(|_| {
                Err(FetchError::TimedOut {
                    endpoint: endpoint.to_string(),
                    timeout: self.timeout,
                })
            })?;
        let demanded = policy;
        let mut policy = demanded.to_builder().nonce(nonce.clone());
        if self.tls.is_attested() {
            let key = answer
                .server_key
                .ok_or_else(|| FetchError::NoTls(endpoint.to_string()))?;
            if !demanded.accepts_public_key(&key) {
                return Err(FetchError::OtherKey(endpoint.to_string()));
            }
            policy = policy.bind_public_key(Binding::Equal(key));
        }
        let policy = policy
            .build()
            .map_err(|error| FetchError::Local(error.to_string()))?;
        let document = answer.document;
        let verifier = Arc::clone(&self.verifier);
        let verify = move || {
            let verification = verifier.verify(&document, &policy, Time::Now);
            let outcome = verification.outcome.map(VerifiedClaims::from);
            (verification.report, outcome, document)
        };
        let (report, outcome, document) = tokio::task::spawn_blocking(verify)
            .await
            .map_err(|error| FetchError::Local(error.to_string()))?;
        Ok(Attestation {
            document,
            nonce,
            report,
            outcome,
        })
    }

    async fn fetch(&self, endpoint: &Endpoint, nonce: &[u8]) -> Result<Answer, FetchError> {
        if let Some(server) = &self.server {
            if matches!(endpoint.0, endpoint::Kind::Url(_)) {
                return Err(FetchError::TwoServers(endpoint.to_string()));
            }
            let server_key = Some(server.key(&self.tls).await?);
            let answer = self.ask(endpoint, nonce).await?;
            return Ok(Answer {
                server_key,
                ..answer
            });
        }
        self.ask(endpoint, nonce).await
    }

    async fn ask(&self, endpoint: &Endpoint, nonce: &[u8]) -> Result<Answer, FetchError> {
        match &endpoint.0 {
            endpoint::Kind::Url(url) => http::get(endpoint, url, &self.tls, nonce).await,
            endpoint::Kind::Agent(socket) => http::post(endpoint, socket, nonce).await,
            #[cfg(feature = "nsm")]
            endpoint::Kind::Nsm(socket) => Ok(Answer {
                document: module::attestation(socket, nonce).await?,
                server_key: None,
            }),
        }
    }
}
