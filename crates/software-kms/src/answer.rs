//! What calls are answered with.

use serde::Serialize;

use crate::wire::Blob;

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
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) public_key: Option<Blob>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) private_key_ciphertext_blob: Option<Blob>,
    /// Absent where there is `ciphertext_for_recipient`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) private_key_plaintext: Option<Blob>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key_pair_spec: Option<&'static str>,
    /// Absent where there is `ciphertext_for_recipient`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) shared_secret: Option<Blob>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key_agreement_algorithm: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key_agreement_algorithms: Option<&'static [&'static str]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key_origin: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key_spec: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key_usage: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) source_key_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) source_encryption_algorithm: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) destination_encryption_algorithm: Option<&'static str>,
}

impl Answer {
    /// The answer to the same call of the kind that gives no plaintext.
    pub(crate) fn without_secret(self) -> Self {
        Self {
            plaintext: None,
            private_key_plaintext: None,
            ciphertext_for_recipient: None,
            ..self
        }
    }
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
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) encryption_algorithms: Option<&'static [&'static str]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key_agreement_algorithms: Option<&'static [&'static str]>,
    pub(crate) key_id: String,
    pub(crate) key_manager: &'static str,
    pub(crate) key_spec: &'static str,
    pub(crate) key_state: &'static str,
    pub(crate) key_usage: &'static str,
    pub(crate) multi_region: bool,
    pub(crate) origin: &'static str,
}
