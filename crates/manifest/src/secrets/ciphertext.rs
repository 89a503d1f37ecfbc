//! Ciphertexts that KMS decrypts, where they are stored, and what they are bound to.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;

use aws_endpoint::{Object, Service, is_region};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::error::SecretError;

/// Largest ciphertext in bytes: what KMS takes for one call of `Decrypt`.
pub const MAX_CIPHERTEXT_BYTES: usize = 6144;
/// The longest name of a stored ciphertext in bytes: what Systems Manager and Secrets
/// Manager take, for an ARN.
const MAX_STORED_NAME_BYTES: usize = 2048;
/// The longest ARN of a key in bytes: the longest key id that KMS takes.
const MAX_KEY_ARN_BYTES: usize = 2048;
/// All names and values of an encryption context together, in bytes.
const MAX_CONTEXT_BYTES: usize = 8192;

/// What KMS made of a secret: 1 to [`MAX_CIPHERTEXT_BYTES`] bytes, written in base64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CiphertextBlob(Vec<u8>);

impl CiphertextBlob {
    /// The blob itself, or its base64 as `aws kms encrypt` prints it, with or without
    /// line ends.
    pub fn from_stored(bytes: &[u8]) -> Result<Self, SecretError> {
        // KMS's own blobs begin with a byte of value 1 or 2, which no text has.
        let text: Option<String> = bytes
            .iter()
            .filter(|byte| !byte.is_ascii_whitespace())
            .map(|&byte| byte.is_ascii_graphic().then_some(char::from(byte)))
            .collect();
        let decoded = text.and_then(|text| STANDARD.decode(text).ok());
        Self::try_from(decoded.unwrap_or_else(|| bytes.to_owned()))
    }
}

impl TryFrom<Vec<u8>> for CiphertextBlob {
    type Error = SecretError;

    fn try_from(bytes: Vec<u8>) -> Result<Self, SecretError> {
        if (1..=MAX_CIPHERTEXT_BYTES).contains(&bytes.len()) {
            Ok(Self(bytes))
        } else {
            Err(SecretError::CiphertextSize(bytes.len()))
        }
    }
}

impl TryFrom<String> for CiphertextBlob {
    type Error = SecretError;

    fn try_from(text: String) -> Result<Self, SecretError> {
        let bytes = STANDARD.decode(text).map_err(|_| SecretError::Base64)?;
        Self::try_from(bytes)
    }
}

impl From<CiphertextBlob> for String {
    fn from(blob: CiphertextBlob) -> Self {
        STANDARD.encode(blob.0)
    }
}

impl Deref for CiphertextBlob {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

/// Where a ciphertext is stored, outside the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoredAt {
    /// In the parameter of this name or ARN.
    Ssm(String),
    /// In the secret of this name or ARN.
    SecretsManager(String),
    /// In this object.
    S3(Object),
}

impl StoredAt {
    pub(super) fn ssm(name: String) -> Result<Self, SecretError> {
        check_stored_name(&name).map(|()| Self::Ssm(name))
    }

    pub(super) fn secretsmanager(name: String) -> Result<Self, SecretError> {
        check_stored_name(&name).map(|()| Self::SecretsManager(name))
    }

    pub(super) fn s3(address: &str) -> Result<Self, SecretError> {
        address.parse().map(Self::S3).map_err(SecretError::S3)
    }

    /// Its ARN, if it is named by that.
    pub fn arn(&self) -> Option<&str> {
        match self {
            Self::Ssm(name) | Self::SecretsManager(name) => {
                name.starts_with("arn:").then_some(name)
            }
            Self::S3(_) => None,
        }
    }

    /// The service that has it.
    pub const fn service(&self) -> Service {
        match self {
            Self::Ssm(_) => Service::Ssm,
            Self::SecretsManager(_) => Service::SecretsManager,
            Self::S3(_) => Service::S3,
        }
    }
}

impl fmt::Display for StoredAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ssm(name) => write!(f, "the parameter {name} of Systems Manager"),
            Self::SecretsManager(name) => write!(f, "the secret {name} of Secrets Manager"),
            Self::S3(object) => write!(f, "the object {object}"),
        }
    }
}

/// Visible characters: what goes into a request as it stands.
fn check_stored_name(name: &str) -> Result<(), SecretError> {
    let is_allowed = (1..=MAX_STORED_NAME_BYTES).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_graphic());
    if is_allowed {
        Ok(())
    } else {
        Err(SecretError::StoredName(name.to_owned()))
    }
}

/// A KMS key by its ARN: what KMS says it has used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyArn(String);

impl TryFrom<String> for KeyArn {
    type Error = SecretError;

    fn try_from(text: String) -> Result<Self, SecretError> {
        let mut parts = text.splitn(6, ':');
        let mut part = || parts.next().unwrap_or_default();
        let (arn, partition, service, region, account, resource) =
            (part(), part(), part(), part(), part(), part());
        let is_id = |id: &str| {
            !id.is_empty()
                && id
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        };
        let is_key = text.len() <= MAX_KEY_ARN_BYTES
            && arn == "arn"
            && is_id(partition)
            && service == "kms"
            && is_region(region)
            && account.len() == 12
            && account.bytes().all(|byte| byte.is_ascii_digit())
            && resource.strip_prefix("key/").is_some_and(is_id);
        if is_key {
            Ok(Self(text))
        } else {
            Err(SecretError::KeyArn(text))
        }
    }
}

impl From<KeyArn> for String {
    fn from(arn: KeyArn) -> Self {
        arn.0
    }
}

impl Deref for KeyArn {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

/// What a ciphertext is bound to, as KMS takes it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    try_from = "BTreeMap<String, String>",
    into = "BTreeMap<String, String>"
)]
pub struct EncryptionContext(BTreeMap<String, String>);

impl EncryptionContext {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl TryFrom<BTreeMap<String, String>> for EncryptionContext {
    type Error = SecretError;

    fn try_from(pairs: BTreeMap<String, String>) -> Result<Self, SecretError> {
        let lengths = pairs.iter().map(|(name, value)| name.len() + value.len());
        if pairs.keys().any(String::is_empty) || lengths.sum::<usize>() > MAX_CONTEXT_BYTES {
            return Err(SecretError::Context(MAX_CONTEXT_BYTES));
        }
        Ok(Self(pairs))
    }
}

impl From<EncryptionContext> for BTreeMap<String, String> {
    fn from(context: EncryptionContext) -> Self {
        context.0
    }
}

impl Deref for EncryptionContext {
    type Target = BTreeMap<String, String>;

    fn deref(&self) -> &BTreeMap<String, String> {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn read<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, String> {
        serde_json::from_value(value).map_err(|error| error.to_string())
    }

    #[test]
    fn secret_ciphertexts_that_cannot_be_used_are_refused_with_what_can() {
        for arn in [
            "1234abcd-12ab-34cd-56ef-1234567890ab",
            "alias/app",
            "arn:aws:kms:eu-central-1:111122223333:alias/app",
            "arn:aws:kms:eu-central-1:1111222233:key/1",
            "arn:aws:kms:nowhere:111122223333:key/1",
            "arn:aws:s3:eu-central-1:111122223333:key/1",
            "arn:aws:kms:eu-central-1:111122223333:key/1:2",
            "arn:aws:kms:eu-central-1:111122223333:key/",
        ] {
            let error = read::<KeyArn>(json!(arn)).unwrap_err();
            assert!(error.contains("the ARN of a key"), "{error}");
        }
        for base64 in ["?", "AAA", "AA==\n"] {
            let error = read::<CiphertextBlob>(json!(base64)).unwrap_err();
            assert!(error.contains("not base64"), "{error}");
        }
        for size in [0, MAX_CIPHERTEXT_BYTES + 1] {
            let error = read::<CiphertextBlob>(json!(STANDARD.encode(vec![0; size]))).unwrap_err();
            assert!(error.contains("of 1 to 6144"), "{error}");
        }
        for context in [
            json!({"": "x"}),
            json!({"a": "x".repeat(MAX_CONTEXT_BYTES)}),
        ] {
            let error = read::<EncryptionContext>(context).unwrap_err();
            assert!(error.contains("at most 8192 bytes"), "{error}");
        }
        for name in ["", "a b", "\u{e4}", "a\n", &"x".repeat(2049)] {
            assert!(StoredAt::ssm(name.to_owned()).is_err(), "{name}");
            assert!(StoredAt::secretsmanager(name.to_owned()).is_err(), "{name}");
        }
        let error = StoredAt::s3("https://bucket/key").unwrap_err().to_string();
        assert!(error.contains("write s3://BUCKET/KEY"), "{error}");
    }

    #[test]
    fn secret_ciphertexts_are_written_as_they_are_read() {
        fn same<T: serde::de::DeserializeOwned + Serialize>(value: &Value) {
            let read: T = read(value.clone()).unwrap();
            assert_eq!(&serde_json::to_value(&read).unwrap(), value);
        }
        same::<KeyArn>(&json!(
            "arn:aws-us-gov:kms:us-gov-west-1:111122223333:key/mrk-1f"
        ));
        same::<CiphertextBlob>(&json!("AQID"));
        same::<EncryptionContext>(&json!({"app": "demo"}));
    }

    #[test]
    fn secret_ciphertexts_are_stored_in_base64_or_as_they_are() {
        for stored in [b"AQID".as_slice(), b"AQID\n", b"A Q\r\nI\tD", &[1, 2, 3]] {
            let blob = CiphertextBlob::from_stored(stored).unwrap();
            assert_eq!(*blob, [1, 2, 3], "{stored:?}");
        }
        for empty in [b"".as_slice(), b" \n"] {
            assert!(CiphertextBlob::from_stored(empty).is_err(), "{empty:?}");
        }
    }

    proptest! {
        #[test]
        fn secret_ciphertexts_of_any_bytes_do_not_panic(bytes: Vec<u8>) {
            if let Ok(blob) = CiphertextBlob::from_stored(&bytes) {
                prop_assert!(!blob.is_empty());
            }
        }
    }
}
