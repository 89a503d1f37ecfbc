//! The client of the enclave's local API.

use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use hyper::{Method, Request, StatusCode, Uri};
use serde_json::{Value, json};
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

/// Marks a request as one of a program that knows the API, which refuses all others: no
/// browser, redirect or naive proxy sends it.
const MARK: HeaderName = HeaderName::from_static("enclave-api");

/// Why the API did not do what it was asked to.
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
        let body = json!({
            "nonce": STANDARD.encode(nonce),
            "public_key": STANDARD.encode(public_key),
        });
        let request = self.request(Method::POST, "/v1/attestation", &body);
        self.ask(request).await
    }

    /// Names the key by which clients know this enclave: documents for challenges that
    /// the parent relays carry it from now on.
    pub async fn name_identity(&self, public_key: &[u8]) -> Result<(), ApiError> {
        let body = json!({ "public_key": STANDARD.encode(public_key) });
        let request = self.request(Method::PUT, "/v1/identity", &body);
        self.ask(request).await.map(drop)
    }

    fn request(&self, method: Method, path: &'static str, body: &Value) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::from(body.to_string()));
        *request.method_mut() = method;
        *request.uri_mut() = Uri::from_static(path);
        let headers = request.headers_mut();
        // An address has no character that a header could not have.
        if let Ok(host) = self.address.to_string().parse() {
            headers.insert(HOST, host);
        }
        headers.insert(MARK, HeaderValue::from_static("1"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        request
    }

    async fn ask(&self, request: Request<Full<Bytes>>) -> Result<Bytes, ApiError> {
        timeout(API_TIMEOUT, self.exchange(request))
            .await
            .unwrap_or(Err(ApiError::TimedOut))
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Bytes, ApiError> {
        let stream =
            TcpStream::connect(self.address)
                .await
                .map_err(|source| ApiError::Connect {
                    address: self.address,
                    source,
                })?;
        let response = exchange(stream, request, MAX_DOCUMENT).await?;
        if !response.status().is_success() {
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
