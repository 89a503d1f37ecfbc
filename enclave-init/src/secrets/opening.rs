//! Secrets that KMS opens: their ciphertexts, in the image or fetched.

use aws_endpoint::Variant;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::StatusCode;
use manifest::{Ciphertext, CiphertextBlob, KmsEncrypted, StoredAt};
use serde::Deserialize;
use serde_json::json;
use zeroize::Zeroizing;

use super::failure::Failure;
use crate::aws::{Answer, Client, Service};
use crate::kms::Kms;

/// What opens secrets, and what has their ciphertexts.
pub(super) struct Origins {
    kms: Kms,
    client: Client,
    ssm: Option<Service>,
    secretsmanager: Option<Service>,
}

/// A secret that has been opened.
pub(super) struct Opened {
    pub(super) ciphertext: Vec<u8>,
    pub(super) value: Zeroizing<Vec<u8>>,
}

/// A parameter, as Systems Manager gives it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ParameterAnswer {
    parameter: Parameter,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Parameter {
    value: String,
}

/// A secret, as Secrets Manager gives it: a text, or bytes in base64.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SecretAnswer {
    secret_string: Option<String>,
    secret_binary: Option<String>,
}

impl Origins {
    pub(super) fn new(kms: Kms, client: Client, region: &str, fips: bool) -> Self {
        let service = |service: aws_endpoint::Service| {
            let variant = Variant {
                fips,
                dual_stack: false,
            };
            let endpoint = format!("https://{}", service.host(region, variant));
            let endpoint = endpoint.parse().ok()?;
            Some(Service::new(service.name(), endpoint, region))
        };
        Self {
            kms,
            client,
            ssm: service(aws_endpoint::Service::Ssm),
            secretsmanager: service(aws_endpoint::Service::SecretsManager),
        }
    }

    /// Has KMS open a secret; nothing if its ciphertext is the known one.
    pub(super) async fn open(
        &self,
        encrypted: &KmsEncrypted<Ciphertext>,
        known: Option<&[u8]>,
    ) -> Result<Option<Opened>, Failure> {
        let ciphertext = match &encrypted.ciphertext {
            Ciphertext::Inline(blob) => blob.to_vec(),
            Ciphertext::Stored(place) => self.fetch(place).await?.to_vec(),
        };
        if known == Some(&*ciphertext) {
            return Ok(None);
        }
        let key_id = encrypted.key_id.as_deref();
        let context = &encrypted.encryption_context;
        let value = self.kms.decrypt(&ciphertext, key_id, context).await?;
        Ok(Some(Opened { ciphertext, value }))
    }

    /// The ciphertext that is stored there.
    async fn fetch(&self, place: &StoredAt) -> Result<CiphertextBlob, Failure> {
        let (service, target, body) = match place {
            StoredAt::Ssm(name) => (
                &self.ssm,
                "AmazonSSM.GetParameter",
                json!({ "Name": name, "WithDecryption": true }),
            ),
            StoredAt::SecretsManager(name) => (
                &self.secretsmanager,
                "secretsmanager.GetSecretValue",
                json!({ "SecretId": name }),
            ),
        };
        let about = || place.to_string();
        let service = service.as_ref().ok_or_else(|| Failure::NoHost(about()))?;
        let body = Zeroizing::new(body.to_string().into_bytes());
        let call = self.client.call(service, target, body).await;
        let answer = call.map_err(|error| Failure::Fetch(about(), error))?;
        if answer.status != StatusCode::OK {
            return Err(Failure::Refused {
                place: about(),
                answer: answer.into(),
            });
        }
        let stored = stored(place, &answer).ok_or_else(|| Failure::Answer(about()))?;
        CiphertextBlob::from_stored(&stored)
            .map_err(|error| Failure::Stored(about(), error.to_string()))
    }
}

/// What is stored there, by the service's answer.
fn stored(place: &StoredAt, answer: &Answer) -> Option<Vec<u8>> {
    match place {
        StoredAt::Ssm(_) => {
            let answer: ParameterAnswer = serde_json::from_slice(&answer.body).ok()?;
            Some(answer.parameter.value.into_bytes())
        }
        StoredAt::SecretsManager(_) => {
            let answer: SecretAnswer = serde_json::from_slice(&answer.body).ok()?;
            match (answer.secret_string, answer.secret_binary) {
                (Some(text), None) => Some(text.into_bytes()),
                (None, Some(base64)) => STANDARD.decode(base64).ok(),
                _ => None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use hyper::HeaderMap;

    use super::*;

    #[test]
    fn secrets_are_read_from_the_answers_of_both_services() {
        let read = |place: &serde_json::Value, body: &str| {
            let ciphertext: Ciphertext = serde_json::from_value(place.clone()).unwrap();
            let Ciphertext::Stored(place) = ciphertext else {
                panic!("{place}");
            };
            let answer = Answer {
                status: StatusCode::OK,
                headers: HeaderMap::new(),
                body: body.as_bytes().to_vec().into(),
            };
            stored(&place, &answer)
        };
        let ssm = json!({"ssm": "/a"});
        let secretsmanager = json!({"secretsmanager": "a"});
        let value = Some(b"AQID".to_vec());
        for (place, body, expected) in [
            (
                &ssm,
                r#"{"Parameter":{"Name":"/a","Value":"AQID"}}"#,
                &value,
            ),
            (&ssm, r#"{"Parameter":{"Name":"/a"}}"#, &None),
            (&ssm, "<html>", &None),
            (
                &secretsmanager,
                r#"{"Name":"a","SecretString":"AQID"}"#,
                &value,
            ),
            (&secretsmanager, r#"{"SecretBinary":"QVFJRA=="}"#, &value),
            (&secretsmanager, r#"{"SecretBinary":"?"}"#, &None),
            (&secretsmanager, r#"{"Name":"a"}"#, &None),
        ] {
            assert_eq!(read(place, body), *expected, "{body}");
        }
    }
}
