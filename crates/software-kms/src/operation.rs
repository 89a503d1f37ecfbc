//! The calls and their parameters.

use serde::Deserialize;

use crate::data_key_pair::PairSpec;
use crate::error::{Kind, Refusal};
use crate::wire::{Blob, Context, Recipient};

/// What `X-Amz-Target` begins with.
const SERVICE: &str = "TrentService.";

/// A call with its parameters. Those that this KMS has no use for are ignored, as KMS
/// ignores those that it does not know.
#[derive(Debug)]
pub(crate) enum Operation {
    CreateKey(CreateKey),
    Decrypt(Decrypt),
    DeriveSharedSecret(DeriveSharedSecret),
    DescribeKey(NamedKey),
    Encrypt(Encrypt),
    GenerateDataKey(GenerateDataKey),
    GenerateDataKeyPair(GenerateDataKeyPair),
    GenerateDataKeyPairWithoutPlaintext(GenerateDataKeyPair),
    GenerateDataKeyWithoutPlaintext(GenerateDataKey),
    GenerateRandom(GenerateRandom),
    GetPublicKey(NamedKey),
    PutKeyPolicy(PutKeyPolicy),
    ReEncrypt(ReEncrypt),
}

impl Operation {
    pub(crate) fn parse(target: &str, body: &[u8]) -> Result<Self, Refusal> {
        match target.strip_prefix(SERVICE) {
            Some("CreateKey") => read(body).map(Self::CreateKey),
            Some("Decrypt") => read(body).map(Self::Decrypt),
            Some("DeriveSharedSecret") => read(body).map(Self::DeriveSharedSecret),
            Some("DescribeKey") => read(body).map(Self::DescribeKey),
            Some("Encrypt") => read(body).map(Self::Encrypt),
            Some("GenerateDataKey") => read(body).map(Self::GenerateDataKey),
            Some("GenerateDataKeyPair") => read(body).map(Self::GenerateDataKeyPair),
            Some("GenerateDataKeyPairWithoutPlaintext") => {
                read(body).map(Self::GenerateDataKeyPairWithoutPlaintext)
            }
            Some("GenerateDataKeyWithoutPlaintext") => {
                read(body).map(Self::GenerateDataKeyWithoutPlaintext)
            }
            Some("GenerateRandom") => read(body).map(Self::GenerateRandom),
            Some("GetPublicKey") => read(body).map(Self::GetPublicKey),
            Some("PutKeyPolicy") => read(body).map(Self::PutKeyPolicy),
            Some("ReEncrypt") => read(body).map(Self::ReEncrypt),
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
pub(crate) struct CreateKey {
    pub(crate) policy: Option<String>,
    pub(crate) key_spec: Option<String>,
    pub(crate) key_usage: Option<String>,
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
pub(crate) struct DeriveSharedSecret {
    pub(crate) key_id: Option<String>,
    pub(crate) key_agreement_algorithm: Option<String>,
    pub(crate) public_key: Option<Blob>,
    pub(crate) recipient: Option<Recipient>,
}

/// The parameters of calls about a key.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct NamedKey {
    pub(crate) key_id: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct PutKeyPolicy {
    pub(crate) key_id: Option<String>,
    pub(crate) policy: Option<String>,
    #[serde(default)]
    pub(crate) bypass_policy_lockout_safety_check: bool,
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
pub(crate) struct ReEncrypt {
    pub(crate) ciphertext_blob: Option<Blob>,
    #[serde(default)]
    pub(crate) source_encryption_context: Context,
    pub(crate) source_key_id: Option<String>,
    pub(crate) source_encryption_algorithm: Option<String>,
    pub(crate) destination_key_id: Option<String>,
    #[serde(default)]
    pub(crate) destination_encryption_context: Context,
    pub(crate) destination_encryption_algorithm: Option<String>,
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
    /// The parameters as the call that gives no plaintext has them.
    pub(crate) fn without_recipient(self) -> Self {
        Self {
            recipient: None,
            ..self
        }
    }

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
pub(crate) struct GenerateDataKeyPair {
    pub(crate) key_id: Option<String>,
    #[serde(default)]
    pub(crate) encryption_context: Context,
    key_pair_spec: Option<String>,
    pub(crate) recipient: Option<Recipient>,
}

impl GenerateDataKeyPair {
    /// The parameters as the call that gives no plaintext has them.
    pub(crate) fn without_recipient(self) -> Self {
        Self {
            recipient: None,
            ..self
        }
    }

    pub(crate) fn spec(&self) -> Result<PairSpec, Refusal> {
        PairSpec::parse(self.key_pair_spec.as_deref())
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
