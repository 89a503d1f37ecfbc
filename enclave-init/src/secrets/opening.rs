//! Secrets that KMS opens: their ciphertexts, in the image or fetched.

use std::fmt::Write;

use aws_endpoint::Object;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::StatusCode;
use manifest::{Ciphertext, CiphertextBlob, KmsEncrypted, MAX_CIPHERTEXT_BYTES, StoredAt};
use serde::Deserialize;
use serde_json::json;
use zeroize::Zeroizing;

use super::failure::Failure;
use crate::aws::{Answer, Client, Parameter, Service, is_of_same_account};
use crate::kms::Kms;

/// The largest object that is read, in bytes: a ciphertext in base64, with room for line
/// ends.
const MAX_OBJECT: usize = 2 * MAX_CIPHERTEXT_BYTES;

/// What opens secrets, and what has their ciphertexts.
pub(super) struct Origins {
    kms: Kms,
    client: Client,
    ssm: Option<Service>,
    secretsmanager: Option<Service>,
    s3: Option<Service>,
}

/// A secret that has been opened.
pub(super) struct Opened {
    pub(super) ciphertext: Vec<u8>,
    pub(super) value: Zeroizing<Vec<u8>>,
}

/// A secret, as Secrets Manager gives it: a text, or bytes in base64.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SecretAnswer {
    #[serde(rename = "ARN")]
    arn: String,
    secret_string: Option<String>,
    secret_binary: Option<String>,
}

/// What is stored at a place.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    /// The ARN of the parameter or the secret; an object of S3 is its bucket's, whoever asks.
    arn: Option<String>,
    bytes: Vec<u8>,
}

impl Origins {
    pub(super) fn new(kms: Kms, client: Client, region: &str, fips: bool) -> Self {
        let service = |service| Service::regional(service, region, fips);
        Self {
            kms,
            client,
            ssm: service(aws_endpoint::Service::Ssm),
            secretsmanager: service(aws_endpoint::Service::SecretsManager),
            s3: service(aws_endpoint::Service::S3),
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
            Ciphertext::Stored(place) => {
                let key = encrypted.key_id.as_deref();
                self.fetch(place, key).await?.to_vec()
            }
        };
        if known == Some(&*ciphertext) {
            return Ok(None);
        }
        let key_id = encrypted.key_id.as_deref();
        let context = &encrypted.encryption_context;
        let value = self.kms.decrypt(&ciphertext, key_id, context).await?;
        Ok(Some(Opened { ciphertext, value }))
    }

    /// The ciphertext that is stored there, in the account that the place or else the key
    /// names: the parent hands in the credentials, and could hand in those of another one.
    async fn fetch(&self, place: &StoredAt, key: Option<&str>) -> Result<CiphertextBlob, Failure> {
        let about = || place.to_string();
        let ask = |service, target, body: serde_json::Value| {
            let body = Zeroizing::new(body.to_string().into_bytes());
            self.client.call(service, target, body)
        };
        let answer = match place {
            StoredAt::Ssm(name) => {
                let body = json!({ "Name": name, "WithDecryption": true });
                ask(
                    at(self.ssm.as_ref(), place)?,
                    "AmazonSSM.GetParameter",
                    body,
                )
                .await
            }
            StoredAt::SecretsManager(name) => {
                let target = "secretsmanager.GetSecretValue";
                let body = json!({ "SecretId": name });
                ask(at(self.secretsmanager.as_ref(), place)?, target, body).await
            }
            StoredAt::S3(object) => {
                let path = object_path(object);
                self.client
                    .get(at(self.s3.as_ref(), place)?, &path, MAX_OBJECT)
                    .await
            }
        };
        let answer = answer.map_err(|error| Failure::Fetch(about(), error))?;
        if answer.status != StatusCode::OK {
            return Err(Failure::Refused {
                place: about(),
                answer: answer.into(),
            });
        }
        let Found { arn, bytes } =
            stored(place, &answer).ok_or_else(|| Failure::Answer(about()))?;
        if let (Some(arn), Some(expected)) = (arn, place.arn().or(key))
            && !is_of_same_account(&arn, expected)
        {
            return Err(Failure::OtherAccount(about(), arn));
        }
        CiphertextBlob::from_stored(&bytes)
            .map_err(|error| Failure::Stored(about(), error.to_string()))
    }
}

/// What is stored there, by the service's answer.
fn stored(place: &StoredAt, answer: &Answer) -> Option<Found> {
    let (arn, bytes) = match place {
        StoredAt::Ssm(_) => {
            let Parameter { arn, value } = Parameter::of_answer(&answer.body)?;
            (Some(arn), value.into_bytes())
        }
        StoredAt::SecretsManager(_) => {
            let answer: SecretAnswer = serde_json::from_slice(&answer.body).ok()?;
            let bytes = match (answer.secret_string, answer.secret_binary) {
                (Some(text), None) => text.into_bytes(),
                (None, Some(base64)) => STANDARD.decode(base64).ok()?,
                _ => return None,
            };
            (Some(answer.arn), bytes)
        }
        StoredAt::S3(_) => (None, answer.body.to_vec()),
    };
    Some(Found { arn, bytes })
}

/// The service that has it, if the region has that service.
fn at<'s>(service: Option<&'s Service>, place: &StoredAt) -> Result<&'s Service, Failure> {
    service.ok_or_else(|| Failure::NoHost(place.to_string()))
}

/// Where S3 has an object, as requests name and sign it: `/BUCKET/KEY`. The bucket is not
/// part of the host, because S3's certificates know no bucket with a dot.
fn object_path(object: &Object) -> String {
    let mut path = format!("/{}/", object.bucket);
    for byte in object.key.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            path.push(char::from(byte));
        } else {
            // To a string, which takes everything.
            let _ = write!(path, "%{byte:02X}");
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use hyper::HeaderMap;

    use super::*;

    #[test]
    fn secrets_objects_are_named_as_s3_signs_them() {
        let object = Object::new("my.bucket", "a b/c+d~\u{e4}.kms").unwrap();
        assert_eq!(object_path(&object), "/my.bucket/a%20b/c%2Bd~%C3%A4.kms");
    }

    #[test]
    fn secrets_are_read_from_the_answers_of_every_service() {
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
        let s3 = json!({"s3": "s3://bucket/a"});
        for (place, body, arn) in [
            (
                &ssm,
                r#"{"Parameter":{"ARN":"arn:p","Value":"AQID"}}"#,
                Some("arn:p"),
            ),
            (
                &secretsmanager,
                r#"{"ARN":"arn:s","SecretString":"AQID"}"#,
                Some("arn:s"),
            ),
            (
                &secretsmanager,
                r#"{"ARN":"arn:s","SecretBinary":"QVFJRA=="}"#,
                Some("arn:s"),
            ),
            (&s3, "AQID", None),
        ] {
            let expected = Found {
                arn: arn.map(str::to_owned),
                bytes: b"AQID".to_vec(),
            };
            assert_eq!(read(place, body), Some(expected), "{body}");
        }
        for (place, body) in [
            (&ssm, r#"{"Parameter":{"ARN":"arn:p"}}"#),
            (&ssm, r#"{"Parameter":{"Value":"AQID"}}"#),
            (&ssm, "<html>"),
            (&secretsmanager, r#"{"ARN":"arn:s","SecretBinary":"?"}"#),
            (&secretsmanager, r#"{"ARN":"arn:s"}"#),
            (&secretsmanager, r#"{"SecretString":"AQID"}"#),
        ] {
            assert_eq!(read(place, body), None, "{body}");
        }
    }
}
