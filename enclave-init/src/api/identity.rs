//! `PUT`, `POST` and `GET /v1/identity`: the public key that documents for relayed
//! challenges carry. `POST /v1/sign`: signatures by it, if the init has made it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use nsm::MAX_PUBLIC_KEY;
use serde::Deserialize;
use serde_json::json;

use super::attestation::decode;
use super::failure::{Code, Failure};
use super::{Answer, Api};

/// Largest body of a request for a signature: a message of 32 KiB in base64, with room.
const MAX_SIGN_BODY: usize = 44 * 1024;
/// As the algorithm is called in X.509 (RFC 5758).
const ALGORITHM: &str = "ecdsa-with-SHA384";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct IdentityRequest {
    public_key: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SignRequest {
    message: String,
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
    api.nsm.identity().name(key)?;
    Ok(Answer::empty())
}

/// Makes the key in the init, unless it was made before.
pub(super) fn make(api: &Api) -> Result<Answer, Failure> {
    let key = api.nsm.identity().make()?;
    Ok(Answer::json(StatusCode::OK, &key_json(key)))
}

/// Signs a message with the key that the init has made.
pub(super) async fn sign(api: &Api, request: Request<Incoming>) -> Result<Answer, Failure> {
    let SignRequest { message } = super::json_within(request, MAX_SIGN_BODY).await?;
    let message = STANDARD
        .decode(message)
        .map_err(|error| Failure::bad(format!("message is not base64: {error}")))?;
    let signature = api.nsm.identity().sign(&message)?;
    Ok(Answer::json(
        StatusCode::OK,
        &json!({
            "algorithm": ALGORITHM,
            "signature": STANDARD.encode(signature),
        }),
    ))
}

fn key_json(key: &[u8]) -> serde_json::Value {
    json!({ "public_key": STANDARD.encode(key) })
}

/// The key that was named.
pub(super) fn read(api: &Api) -> Result<Answer, Failure> {
    match api.nsm.identity().key() {
        Some(key) => Ok(Answer::json(StatusCode::OK, &key_json(key))),
        None => Err(Failure::new(
            Code::IdentityUnset,
            "no identity key has been registered: PUT {\"public_key\": BASE64} names one, POST has the init make one",
        )),
    }
}
