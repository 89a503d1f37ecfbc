//! Asymmetric keys of KMS.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::client::Client;
use crate::endpoint::Service;
use crate::error::Error;
use crate::json::{Operation, call};

const TARGET: &str = "TrentService";
const SIGN: Operation = Operation {
    service: Service::Kms,
    name: "Sign",
    target: TARGET,
};
const GET_PUBLIC_KEY: Operation = Operation {
    service: Service::Kms,
    name: "GetPublicKey",
    target: TARGET,
};

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Sign<'a> {
    key_id: &'a str,
    message: String,
    message_type: &'static str,
    signing_algorithm: &'a str,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SignAnswer {
    signature: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct GetPublicKey<'a> {
    key_id: &'a str,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GetPublicKeyAnswer {
    public_key: String,
}

/// Calls to KMS.
#[derive(Debug, Clone, Copy)]
pub struct Kms<'a>(&'a Client);

impl Client {
    /// KMS.
    pub fn kms(&self) -> Kms<'_> {
        Kms(self)
    }
}

impl Kms<'_> {
    /// Signs a digest with a key, such as one for `ECDSA_SHA_384`. A signature of
    /// ECDSA is in DER.
    pub async fn sign_digest(
        self,
        key_id: &str,
        digest: &[u8],
        algorithm: &str,
    ) -> Result<Vec<u8>, Error> {
        let input = Sign {
            key_id,
            message: STANDARD.encode(digest),
            message_type: "DIGEST",
            signing_algorithm: algorithm,
        };
        let answer: SignAnswer = call(self.0, &SIGN, &input).await?;
        decode(&SIGN, &answer.signature)
    }

    /// A key's public half, as a `SubjectPublicKeyInfo` in DER.
    pub async fn public_key(self, key_id: &str) -> Result<Vec<u8>, Error> {
        let input = GetPublicKey { key_id };
        let answer: GetPublicKeyAnswer = call(self.0, &GET_PUBLIC_KEY, &input).await?;
        decode(&GET_PUBLIC_KEY, &answer.public_key)
    }
}

fn decode(operation: &Operation, base64: &str) -> Result<Vec<u8>, Error> {
    STANDARD.decode(base64).map_err(|error| Error::Malformed {
        service: operation.service,
        operation: operation.name,
        reason: error.to_string(),
    })
}
