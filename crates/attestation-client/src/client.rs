//! Challenges, and the verification of their answers.

use std::sync::Arc;
use std::time::Duration;

use attestation::{
    Addition, Binding, Nonce, Policy, PolicyError, Purpose, Rejection, Report, VerifiedClaims,
    Verifier,
};
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use tokio::time::timeout;

use crate::endpoint::{Endpoint, Kind};
use crate::error::FetchError;
use crate::http::{self, Answer, Subject};
#[cfg(feature = "nsm")]
use crate::module;
use crate::tls::{Tls, Trust};
use crate::tls_server::TlsServer;

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
#[must_use = "only `outcome` says whether the document was accepted"]
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
        self.challenge(endpoint, policy, Subject::Enclave).await
    }

    /// The same for the key that secrets are sealed to, which is the `public_key` of the
    /// accepted document: the policy demands the purpose [`Purpose::Sealing`] too. Only an
    /// agent answers such challenges.
    pub async fn attest_sealing_key(
        &self,
        endpoint: &Endpoint,
        policy: &Policy,
    ) -> Result<Attestation, FetchError> {
        let policy = policy.with(&Addition {
            purpose: Some(Purpose::Sealing),
            ..Addition::default()
        })?;
        self.challenge(endpoint, &policy, Subject::SealingKey).await
    }

    /// Hands a sealed secret to the enclave's agent; it was opened if there is no error.
    pub async fn put_secret(&self, endpoint: &Endpoint, sealed: &[u8]) -> Result<(), FetchError> {
        let Kind::Agent(socket) = &endpoint.0 else {
            return Err(FetchError::NotAnAgent(endpoint.to_string()));
        };
        timeout(self.timeout, http::put_secret(endpoint, socket, sealed))
            .await
            .unwrap_or_else(|_| Err(self.timed_out(endpoint)))
    }

    fn timed_out(&self, endpoint: &Endpoint) -> FetchError {
        FetchError::TimedOut {
            endpoint: endpoint.to_string(),
            timeout: self.timeout,
        }
    }

    async fn challenge(
        &self,
        endpoint: &Endpoint,
        policy: &Policy,
        subject: Subject,
    ) -> Result<Attestation, FetchError> {
        if policy.fixes_nonce() {
            return Err(PolicyError::FixedNonce.into());
        }
        if self.tls.is_attested() {
            // Of some purposes no document holds a key, whatever the server's is.
            let any_key = Binding::Equal(vec![0]);
            policy.to_builder().bind_public_key(any_key).build()?;
        }
        let mut nonce = vec![0; NONCE_BYTES];
        SystemRandom::new()
            .fill(&mut nonce)
            .map_err(|_| FetchError::Local("there are no random bytes".to_owned()))?;
        let answer = timeout(self.timeout, self.fetch(endpoint, &nonce, subject))
            .await
            .unwrap_or_else(|_| Err(self.timed_out(endpoint)))?;
        let demanded = policy;
        let mut policy = demanded.to_builder();
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
            let verification = verifier.verify(&document, &policy, Nonce::Fresh(&nonce));
            let outcome = verification.outcome.map(VerifiedClaims::from);
            (verification.report, outcome, document, nonce)
        };
        let (report, outcome, document, nonce) = tokio::task::spawn_blocking(verify)
            .await
            .map_err(|error| FetchError::Local(error.to_string()))?;
        Ok(Attestation {
            document,
            nonce,
            report,
            outcome,
        })
    }

    async fn fetch(
        &self,
        endpoint: &Endpoint,
        nonce: &[u8],
        subject: Subject,
    ) -> Result<Answer, FetchError> {
        if let Some(server) = &self.server {
            if matches!(endpoint.0, Kind::Url(_)) {
                return Err(FetchError::TwoServers(endpoint.to_string()));
            }
            let server_key = Some(server.key(&self.tls).await?);
            let answer = self.ask(endpoint, nonce, subject).await?;
            return Ok(Answer {
                server_key,
                ..answer
            });
        }
        self.ask(endpoint, nonce, subject).await
    }

    async fn ask(
        &self,
        endpoint: &Endpoint,
        nonce: &[u8],
        subject: Subject,
    ) -> Result<Answer, FetchError> {
        match &endpoint.0 {
            Kind::Agent(socket) => http::post(endpoint, socket, nonce, subject).await,
            _ if subject == Subject::SealingKey => {
                Err(FetchError::NotAnAgent(endpoint.to_string()))
            }
            Kind::Url(url) => http::get(endpoint, url, &self.tls, nonce).await,
            #[cfg(feature = "nsm")]
            Kind::Nsm(socket) => Ok(Answer {
                document: module::attestation(socket, nonce).await?,
                server_key: None,
            }),
        }
    }
}
