//! `POST /v1/attestation`: a document of the security module.

use attestation::{MAX_NONCE, MAX_PUBLIC_KEY, MAX_USER_DATA};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::Request;
use hyper::body::Incoming;
use serde::Deserialize;

use super::{Answer, Api, Failure};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AttestationRequest {
    nonce: Option<String>,
    user_data: Option<String>,
    public_key: Option<String>,
}

pub(super) async fn create(api: &Api, request: Request<Incoming>) -> Result<Answer, Failure> {
    let request: AttestationRequest = super::json(request).await?;
    let nonce = decode::<MAX_NONCE>("nonce", request.nonce)?;
    let user_data = decode::<MAX_USER_DATA>("user_data", request.user_data)?;
    let public_key = decode::<MAX_PUBLIC_KEY>("public_key", request.public_key)?;
    let document = api
        .nsm
        .run(move |nsm| {
            nsm.attestation(
                user_data.as_deref(),
                nonce.as_deref(),
                public_key.as_deref(),
            )
        })
        .await?;
    Ok(Answer::bytes("application/cbor", document))
}

fn decode<const MAX: usize>(
    name: &str,
    text: Option<String>,
) -> Result<Option<link::Bytes<MAX>>, Failure> {
    text.map(|text| {
        let bytes = STANDARD
            .decode(text)
            .map_err(|error| Failure::bad(format!("{name} is not base64: {error}")))?;
        link::Bytes::new(bytes)
            .ok_or_else(|| Failure::bad(format!("{name} has more than {MAX} bytes")))
    })
    .transpose()
}
