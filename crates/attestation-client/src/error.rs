//! Why there is no document to verify, or no key set to verify with.

use std::time::Duration;

use attestation::PolicyError;
use thiserror::Error;

use crate::encoding::DecodeError;
use crate::endpoint::EndpointError;

/// Why there is no document to verify, or no key set to verify with.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FetchError {
    /// Nobody answered in time.
    #[error("{endpoint} gave no whole answer within {} s", timeout.as_secs_f32())]
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
    #[error("{endpoint} gave an invalid answer: {reason}")]
    Exchange {
        /// Who was asked.
        endpoint: String,
        /// Why.
        reason: String,
    },
    /// The answer is too large.
    #[error("{endpoint} answered with more than {limit} bytes: is this the right URL?")]
    TooLarge {
        /// Who was asked.
        endpoint: String,
        /// How large it may be.
        limit: usize,
    },
    /// The server sends elsewhere.
    #[error("{endpoint} redirects to {location}; if that is intended, ask there")]
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
    /// What is asked for names no endpoint.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// Keys are to come over a connection that anybody on the way can change.
    #[error(
        "{0} is not https: whoever is on the way could answer with keys of their own; ask over https, over http at a loopback address such as 127.0.0.1, or give a file"
    )]
    NotAuthentic(String),
    /// A TLS server is named, where the endpoint is one itself.
    #[error("{0} is asked over its own connection, whose key is bound: name no other TLS server")]
    TwoServers(String),
    /// What only an agent does is asked of somebody else.
    #[error(
        "{0} is no agent's socket, and only an agent takes secrets to an enclave: give unix:PATH"
    )]
    NotAnAgent(String),
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
