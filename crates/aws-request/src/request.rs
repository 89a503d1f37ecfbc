//! A request before it is signed.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;

use crate::endpoint::Service;

/// Bytes of an answer, unless a request says otherwise.
const MAX_ANSWER: usize = 1024 * 1024;
/// How long the first byte of an answer may take, unless a request says otherwise.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// What a request carries.
#[derive(Debug, Clone)]
pub enum Body {
    /// Bytes in memory.
    Bytes(Bytes),
    /// A file, which is read while it is sent. It must not change meanwhile.
    File {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        length: u64,
        /// The SHA-256 of its content, which the service checks.
        sha256: [u8; 32],
    },
}

/// A request to a service.
#[derive(Clone)]
pub struct Request {
    pub(crate) service: Service,
    pub(crate) operation: &'static str,
    pub(crate) method: http::Method,
    /// Comes before the service's host name, as a bucket's name does.
    pub(crate) host_prefix: Option<String>,
    /// Percent-encoded, from the slash on.
    pub(crate) path: String,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Body,
    pub(crate) is_idempotent: bool,
    pub(crate) max_answer: usize,
    pub(crate) timeout: Duration,
}

impl Request {
    /// A request for `path`, percent-encoded and with the query if there is one.
    /// `operation` is its name in AWS's reference, for messages.
    pub fn new(
        service: Service,
        operation: &'static str,
        method: http::Method,
        path: impl Into<String>,
    ) -> Self {
        let is_idempotent = method != http::Method::POST;
        Self {
            service,
            operation,
            method,
            host_prefix: None,
            path: path.into(),
            headers: Vec::new(),
            body: Body::Bytes(Bytes::new()),
            is_idempotent,
            max_answer: MAX_ANSWER,
            timeout: ANSWER_TIMEOUT,
        }
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: Body) -> Self {
        self.body = body;
        self
    }

    /// Says whether the request may arrive twice without harm, so that it is
    /// sent again if no answer came. Unless it is said, everything but a POST may.
    #[must_use]
    pub fn idempotent(mut self, is_idempotent: bool) -> Self {
        self.is_idempotent = is_idempotent;
        self
    }

    /// Sets the most bytes of an answer that is held in memory.
    #[must_use]
    pub fn max_answer(mut self, bytes: usize) -> Self {
        self.max_answer = bytes;
        self
    }

    /// Sets how long the first byte of the answer may take.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}

/// Without the body and the headers, which may be secret.
impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("service", &self.service)
            .field("operation", &self.operation)
            .field("method", &self.method)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// Percent-encodes everything but RFC 3986's unreserved characters, and slashes
/// if they are kept.
pub(crate) fn encode(text: &str, keeps_slashes: bool) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            b'/' if keeps_slashes => encoded.push('/'),
            _ => {
                encoded.push('%');
                encoded += &hex::encode_upper([byte]);
            }
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unreserved_characters_stay_as_they_are() {
        assert_eq!(encode("a-Z_0.9~/é +:", true), "a-Z_0.9~/%C3%A9%20%2B%3A");
        assert_eq!(encode("a/b", false), "a%2Fb");
    }

    #[test]
    fn a_request_does_not_show_its_secrets() {
        let request = Request::new(Service::Ssm, "GetParameter", http::Method::POST, "/")
            .header("x-secret", "hidden-header")
            .body(Body::Bytes(Bytes::from_static(b"hidden-body")));
        assert!(!format!("{request:?}").contains("hidden"));
    }
}
