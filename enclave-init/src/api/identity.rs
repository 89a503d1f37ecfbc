//! `PUT /v1/identity` and `GET /v1/identity`: the public key that documents for relayed
//! challenges carry.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use nsm::MAX_PUBLIC_KEY;
use serde::Deserialize;
use serde_json::json;

use super::attestation::decode;
use super::{Answer, Api, Failure};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct IdentityRequest {
    public_key: String,
}

/// Names the key: once, though the same one may be named again.
pub(super) async fn name(api: &Api, request: Request<Incoming>) -> Result<Answer, Failure> {
    let IdentityRequest { public_key } = super::json(request).await?;
    let key = decode::<MAX_PUBLIC_KEY>("public_key", &public_key)?;
    if key.is_empty() {
        return Err(Failure::bad(format!(
            "public_key is empty: give 1 to {MAX_PUBLIC_KEY} bytes"
        )));
    }
    match api.nsm.identity().name(key) {
        Ok(()) => Ok(Answer::empty()),
        Err(error) => Err(Failure::new(StatusCode::CONFLICT, error.to_string())),
    }
}

/// The key that was named.
pub(super) fn read(api: &Api) -> Result<Answer, Failure> {
    match api.nsm.identity().key() {
        Some(key) => Ok(Answer::json(
            StatusCode::OK,
            &json!({ "public_key": STANDARD.encode(key) }),
        )),
        None => Err(Failure::new(
            StatusCode::NOT_FOUND,
            "no identity key has been registered: PUT {\"public_key\": BASE64} names one",
        )),
    }
}
