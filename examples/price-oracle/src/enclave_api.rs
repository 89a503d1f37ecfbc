//! The client of the enclave's local API.

use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode};
use serde_json::json;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::http::{HttpError, exchange};

/// Largest document that is read: the NSM's answers have at most 12 KiB.
const MAX_DOCUMENT: usize = 16 * 1024;
/// How long the API may take.
const API_TIMEOUT: Duration = Duration::from_secs(5);
/// How much of the API's own explanation is repeated, in characters.
const MAX_REASON: usize = 512;

/// The local API that `enclave-init` serves.
#[derive(Debug, Clone, Copy)]
pub struct EnclaveApi {
    address: SocketAddr,
}

/// Why there is no document.
#[derive(Debug, Error)]
pub enum ApiError {
    /// The API cannot be reached.
    #[error("the enclave's API at {address} cannot be reached: {source}")]
    Connect {
        /// Where it should listen.
        address: SocketAddr,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// The conversation failed.
    #[error("the enclave's API failed: {0}")]
    Http(#[from] HttpError),
    /// The API refused.
    #[error("the enclave's API answered {status}: {reason}")]
    Status {
        /// The status.
        status: StatusCode,
        /// Its explanation.
        reason: String,
    },
    /// The API did not answer in time.
    #[error("the enclave's API did not answer within {} s", API_TIMEOUT.as_secs())]
    TimedOut,
}

impl EnclaveApi {
    /// The API at `address`.
    pub const fn new(address: SocketAddr) -> Self {
        Self { address }
    }

    /// An attestation document that carries `nonce` and `public_key`.
    pub async fn attestation(&self, nonce: &[u8], public_key: &[u8]) -> Result<Bytes, ApiError> {
        timeout(API_TIMEOUT, self.request(nonce, public_key))
            .await
            .unwrap_or(Err(ApiError::TimedOut))
    }

    async fn request(&self, nonce: &[u8], public_key: &[u8]) -> Result<Bytes, ApiError> {
        let stream =
            TcpStream::connect(self.address)
                .await
                .map_err(|source| ApiError::Connect {
                    address: self.address,
                    source,
                })?;
        let body = json!({
            "nonce": STANDARD.encode(nonce),
            "public_key": STANDARD.encode(public_key),
        });
        let mut request = Request::new(Full::from(body.to_string()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = hyper::Uri::from_static("/v1/attestation");
        let headers = request.headers_mut();
        // An address has no character that a header could not have.
        if let Ok(host) = self.address.to_string().parse() {
            headers.insert(HOST, host);
        }
        headers.insert("enclave-api", hyper::header::HeaderValue::from_static("1"));
        headers.insert(
            CONTENT_TYPE,
            hyper::header::HeaderValue::from_static("application/json"),
        );
        let response = exchange(stream, request, MAX_DOCUMENT).await?;
        if response.status() != StatusCode::OK {
            return Err(ApiError::Status {
                status: response.status(),
                reason: String::from_utf8_lossy(response.body())
                    .chars()
                    .take(MAX_REASON)
                    .collect(),
            });
        }
        Ok(response.into_body())
    }
}
