//! The calls, and what they are answered with.

use serde::{Deserialize, Serialize};

use crate::error::{Kind, Refusal};
use crate::wire::{Blob, Context, Recipient};

/// What `X-Amz-Target` begins with.
const SERVICE: &str = "TrentService.";
/// The one algorithm that symmetric keys have.
pub(crate) const SYMMETRIC_DEFAULT: &str = "SYMMETRIC_DEFAULT";

/// A call with its parameters. Those that this KMS has no use for are ignored, as KMS
/// ignores those that it does not know.
#[derive(Debug)]
pub(crate) enum Operation {
    Decrypt(Decrypt),
    DescribeKey(DescribeKey),
    Encrypt(Encrypt),
    GenerateDataKey(GenerateDataKey),
    GenerateDataKeyWithoutPlaintext(GenerateDataKey),
    GenerateRandom(GenerateRandom),
}

impl Operation {
    pub(crate) fn parse(target: &str, body: &[u8]) -> Result<Self, Refusal> {
        match target.strip_prefix(SERVICE) {
            Some("Decrypt") => read(body).map(Self::Decrypt),
            Some("DescribeKey") => read(body).map(Self::DescribeKey),
            Some("Encrypt") => read(body).map(Self::Encrypt),
            Some("GenerateDataKey") => read(body).map(Self::GenerateDataKey),
            Some("GenerateDataKeyWithoutPlaintext") => {
                read(body).map(Self::GenerateDataKeyWithoutPlaintext)
            }
            Some("GenerateRandom") => read(body).map(Self::GenerateRandom),
            _ => Err(Refusal::bare(Kind::UnknownOperation)),
        }
    }
}

fn read<'de, T: Deserialize<'de>>(body: &'de [u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body)
        .map_err(|error| Refusal::new(Kind::Serialization, error.to_string()))
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Decrypt {
    pub(crate) ciphertext_blob: Option<Blob>,
    #[serde(default)]
    pub(crate) encryption_context: Context,
    pub(crate) key_id: Option<String>,
    pub(crate) encryption_algorithm: Option<String>,
    pub(crate) recipient: Option<Recipient>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct DescribeKey {
    pub(crate) key_id: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Encrypt {
    pub(crate) key_id: Option<String>,
    pub(crate) plaintext: Option<Blob>,
    #[serde(default)]
    pub(crate) encryption_context: Context,
    pub(crate) encryption_algorithm: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct GenerateDataKey {
    pub(crate) key_id: Option<String>,
    #[serde(default)]
    pub(crate) encryption_context: Context,
    number_of_bytes: Option<i64>,
    key_spec: Option<String>,
    pub(crate) recipient: Option<Recipient>,
}

impl GenerateDataKey {
    /// The data key's size in bytes.
    pub(crate) fn size(&self) -> Result<usize, Refusal> {
        match (self.number_of_bytes, self.key_spec.as_deref()) {
            (Some(number), None) => size(number),
            (None, Some("AES_128")) => Ok(16),
            (None, Some("AES_256")) => Ok(32),
            (None, Some(_)) => Err(Refusal::constraint(
                "keySpec",
                "satisfy enum value set: [AES_256, AES_128]",
            )),
            _ => Err(Refusal::new(
                Kind::Validation,
                "Please specify either number of bytes or key spec.",
            )),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct GenerateRandom {
    number_of_bytes: Option<i64>,
    pub(crate) recipient: Option<Recipient>,
}

impl GenerateRandom {
    /// How many bytes are wanted.
    pub(crate) fn size(&self) -> Result<usize, Refusal> {
        size(self.number_of_bytes.unwrap_or_default())
    }
}

fn size(number: i64) -> Result<usize, Refusal> {
    let size = usize::try_from(number).unwrap_or_default();
    if (1..=1024).contains(&size) {
        Ok(size)
    } else {
        Err(Refusal::constraint(
            "numberOfBytes",
            "have value between 1 and 1024",
        ))
    }
}

/// The members of every answer; each has those that its call has.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Answer {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ciphertext_blob: Option<Blob>,
    /// Empty where there is `ciphertext_for_recipient`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) plaintext: Option<Blob>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ciphertext_for_recipient: Option<Blob>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) encryption_algorithm: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key_metadata: Option<KeyMetadata>,
}

/// What a key is.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct KeyMetadata {
    #[serde(rename = "AWSAccountId")]
    pub(crate) account: String,
    pub(crate) arn: String,
    /// In seconds since 1970.
    pub(crate) creation_date: f64,
    pub(crate) enabled: bool,
    pub(crate) encryption_algorithms: [&'static str; 1],
    pub(crate) key_id: String,
    pub(crate) key_manager: &'static str,
    pub(crate) key_spec: &'static str,
    pub(crate) key_state: &'static str,
    pub(crate) key_usage: &'static str,
    pub(crate) multi_region: bool,
    pub(crate) origin: &'static str,
}
