//! The keys that an issuer of results publishes.

use std::time::Duration;

use tokio::time::timeout;

use crate::endpoint::{Endpoint, Kind};
use crate::error::FetchError;
use crate::http;
use crate::tls::{Tls, Trust};

/// Gets the key set at a URL, as JSON of at most `limit` bytes: over https, or over
/// http from this machine. Redirects are not followed, and all of it takes at most
/// `patience`.
pub async fn fetch_key_set(
    url: &str,
    trust: Trust,
    limit: usize,
    patience: Duration,
) -> Result<Vec<u8>, FetchError> {
    let endpoint: Endpoint = url.parse()?;
    let Kind::Url(target) = &endpoint.0 else {
        return Err(FetchError::NotAuthentic(endpoint.to_string()));
    };
    if !target.is_authentic() {
        return Err(FetchError::NotAuthentic(endpoint.to_string()));
    }
    let tls = Tls::new(trust);
    let answer = http::resource(&endpoint, target, &tls, limit);
    let body = timeout(patience, answer).await.unwrap_or_else(|_| {
        Err(FetchError::TimedOut {
            endpoint: endpoint.to_string(),
            timeout: patience,
        })
    })?;
    Ok(body.to_vec())
}
