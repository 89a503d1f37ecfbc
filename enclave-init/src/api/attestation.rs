//! `POST /v1/attestation`: a document of the workload's own. It chooses nonce, user data
//! and public key, but no user data by which documents of the init are known.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::Request;
use hyper::body::Incoming;
use nsm::{MAX_NONCE, MAX_PUBLIC_KEY, MAX_USER_DATA};
use serde::Deserialize;

use super::failure::{Code, Failure};
use super::{Answer, Api};
use crate::security_module::{UserData, WorkloadFields};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AttestationRequest {
    nonce: Option<String>,
    user_data: Option<String>,
    public_key: Option<String>,
}

pub(super) async fn create(api: &Api, request: Request<Incoming>) -> Result<Answer, Failure> {
    let request: AttestationRequest = super::json(request).await?;
    let nonce = request.nonce.as_deref();
    let user_data = request.user_data.as_deref().map(|text| {
        let data = decode::<MAX_USER_DATA>("user_data", text)?;
        UserData::new(data).map_err(|error| Failure::new(Code::ReservedUserData, error.to_string()))
    });
    let public_key = request.public_key.as_deref();
    let fields = WorkloadFields {
        nonce: nonce
            .map(|text| decode::<MAX_NONCE>("nonce", text))
            .transpose()?,
        user_data: user_data.transpose()?,
        public_key: public_key
            .map(|text| decode::<MAX_PUBLIC_KEY>("public_key", text))
            .transpose()?,
    };
    let document = api.nsm.run(move |nsm| nsm.workload(&fields)).await?;
    Ok(Answer::bytes("application/cbor", document))
}

/// A field of at most `MAX` bytes.
pub(super) fn decode<const MAX: usize>(
    name: &str,
    base64: &str,
) -> Result<link::Bytes<MAX>, Failure> {
    let bytes = STANDARD
        .decode(base64)
        .map_err(|error| Failure::bad(format!("{name} is not base64: {error}")))?;
    link::Bytes::new(bytes).ok_or_else(|| Failure::bad(format!("{name} has more than {MAX} bytes")))
}
