//! `POST /v1/kms/decrypt`, `/v1/kms/generate-data-key` and `/v1/kms/random`: KMS for
//! programs without an SDK, which have nothing to sign.

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use manifest::EncryptionContext;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use super::failure::{Code, Failure};
use super::{Answer, Api};
use crate::kms::KmsError;

/// Largest body: a ciphertext of 6 KiB in base64, and an encryption context.
const MAX_BODY: usize = 32 * 1024;

/// A call as KMS takes it.
pub(super) trait Call: Serialize {
    const TARGET: &'static str;
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all(serialize = "PascalCase"))]
pub(super) struct Decrypt {
    #[serde(rename(serialize = "CiphertextBlob"))]
    ciphertext: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    encryption_algorithm: Option<String>,
    #[serde(default)]
    encryption_context: EncryptionContext,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all(serialize = "PascalCase"))]
pub(super) struct GenerateDataKey {
    key_id: String,
    #[serde(rename(serialize = "NumberOfBytes"))]
    bytes: u32,
    #[serde(default)]
    encryption_context: EncryptionContext,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Random {
    #[serde(rename(serialize = "NumberOfBytes"))]
    bytes: u32,
}

impl Call for Decrypt {
    const TARGET: &'static str = "TrentService.Decrypt";
}

impl Call for GenerateDataKey {
    const TARGET: &'static str = "TrentService.GenerateDataKey";
}

impl Call for Random {
    const TARGET: &'static str = "TrentService.GenerateRandom";
}

/// What KMS releases, and what it says of it.
#[derive(Deserialize, Serialize)]
#[serde(rename_all(deserialize = "PascalCase"))]
struct Released {
    plaintext: String,
    #[serde(
        default,
        rename(deserialize = "CiphertextBlob"),
        skip_serializing_if = "Option::is_none"
    )]
    ciphertext: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key_id: Option<String>,
}

impl Drop for Released {
    fn drop(&mut self) {
        self.plaintext.zeroize();
    }
}

/// Makes the call that the request asks for.
pub(super) async fn make<C: DeserializeOwned + Call>(
    api: &Api,
    request: Request<Incoming>,
) -> Result<Answer, Failure> {
    let kms = api.kms.as_ref().ok_or_else(|| {
        let reason = "this image calls no KMS: add the table [kms] to enclave.toml";
        Failure::new(Code::NoKms, reason)
    })?;
    let call: C = super::json_within(request, MAX_BODY).await?;
    let body = serde_json::to_vec(&call)
        .map_err(|error| Failure::bad(format!("the call cannot be written: {error}")))?;
    let answer = kms.forward(C::TARGET, Zeroizing::new(body)).await?;
    if answer.status != StatusCode::OK {
        return Err(KmsError::Refused(answer.into()).into());
    }
    let released: Released = serde_json::from_slice(&answer.body)
        .map_err(|_| Failure::new(Code::KmsAnswer, "KMS's answer is not understood"))?;
    let body = serde_json::to_vec(&released)
        .map_err(|error| Failure::bad(format!("the answer cannot be written: {error}")))?;
    let body = Bytes::from_owner(Zeroizing::new(body));
    Ok(Answer::new(StatusCode::OK, "application/json", body))
}
