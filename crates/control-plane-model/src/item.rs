//! An enclave's item, as far as the control plane reads it.

use std::time::Duration;

use aws_lc_rs::digest::{SHA384, digest};
use aws_sdk_dynamodb::types::AttributeValue;
use measurements::Pcr;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;

use crate::attributes::{Attributes, get_number, get_text, to_json};
use crate::execution::Reason;
use crate::sealing::Sealing;
use crate::status::Status;

pub use crate::instant::{parse_timestamp, timestamp};

/// Names of attributes.
pub mod name {
    #![expect(missing_docs, reason = "each is the attribute of its name")]
    pub const ID: &str = "id";
    pub const STATUS: &str = "status";
    pub const WALLET_ADDRESS: &str = "walletAddress";
    pub const PROVIDER_ID: &str = "providerId";
    pub const PROVIDER_CONFIG: &str = "providerConfig";
    pub const UPDATED_AT: &str = "updated_at";
    pub const ERROR_MESSAGE: &str = "error_message";
    pub const ERROR_TYPE: &str = "error_type";
    pub const EXECUTION_ARN: &str = "execution_arn";
    pub const GENERATION: &str = "generation";
    pub const IMAGE: &str = "image";
    pub const ATTESTATION: &str = "attestation";
    pub const ATTESTATION_TOKEN: &str = "attestation_token";
    pub const PROGRESS: &str = "progress";
    /// The execution whose runner writes [`PROGRESS`] and [`UPDATED_AT`]. IAM does not tell a
    /// condition from a write, nor one item from another, so that a runner may write these
    /// three of every item. [`UPDATED_AT`] decides when an item counts as abandoned; no status,
    /// owner, request or result is among them.
    pub const RUNNER: &str = "runner";
    pub const OUTPUTS: &str = "outputs";
    pub const REQUEST: &str = "request";
    pub const REFUSED: &str = "refused";
    pub const NOTICED_AT: &str = "noticed_at";
    pub const WAITING: &str = "waiting";
    pub const SEALING: &str = "sealing";

    /// What is about one boot of the enclave. Nothing of it is true of the next boot, so
    /// every write that leaves an item whose enclave does not run removes it, but for
    /// [`WAITING`], which a failure leaves: it may say why.
    pub const OF_A_BOOT: [&str; 3] = [ATTESTATION_TOKEN, WAITING, SEALING];
}

/// The provider whose items these are. Others may share the table.
pub const PROVIDER: &str = "aws-nitro";

/// An item.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Enclave {
    /// The enclave's id.
    pub id: String,
    /// The attribute as it is; it may be none of ours.
    pub status_text: Option<String>,
    /// Its owner.
    pub wallet_address: Option<String>,
    /// Who runs it; [`PROVIDER`], or absent on old items.
    pub provider_id: Option<String>,
    /// The client's request, as plain JSON.
    pub provider_config: Value,
    /// When it was written last.
    pub updated_at: Option<String>,
    /// The execution that owns it, or the last one that did.
    pub execution_arn: Option<String>,
    /// How often it was claimed.
    pub generation: u64,
    /// What was deployed: an [`Image`] as JSON.
    pub image: Option<String>,
    /// Its attestation.
    pub attestation: Option<Attestation>,
    /// The token of the execution that waits for the attestation.
    pub attestation_token: Option<String>,
    /// What the runner does, in a line for people.
    pub progress: Option<String>,
    /// What went wrong, for people.
    pub error_message: Option<String>,
    /// What went wrong, for programs.
    pub error_type: Option<String>,
    /// What Terraform made.
    pub outputs: Value,
    /// The sequence number of the execution that may claim it.
    pub request: Option<String>,
    /// The sequence number of the last write that was refused.
    pub refused: Option<String>,
    /// When the monitor first saw a request that nobody took.
    pub noticed_at: Option<String>,
    /// What the enclave waits for before its workload starts, in its agent's words.
    pub waiting: Option<String>,
    /// A secret on its way to the enclave, or what became of the last one.
    pub sealing: Option<Sealing>,
}

impl Enclave {
    /// Reads an item. Attributes that are not what they should be are absent.
    pub fn from_attributes(attributes: &Attributes) -> Self {
        let json = |name: &str| attributes.get(name).map_or(Value::Null, to_json);
        Self {
            id: get_text(attributes, name::ID).unwrap_or_default(),
            status_text: get_text(attributes, name::STATUS),
            wallet_address: get_text(attributes, name::WALLET_ADDRESS),
            provider_id: get_text(attributes, name::PROVIDER_ID),
            provider_config: json(name::PROVIDER_CONFIG),
            updated_at: get_text(attributes, name::UPDATED_AT)
                .or_else(|| get_text(attributes, "updatedAt")),
            execution_arn: get_text(attributes, name::EXECUTION_ARN),
            generation: get_number(attributes, name::GENERATION).unwrap_or_default(),
            image: get_text(attributes, name::IMAGE),
            attestation: serde_json::from_value(json(name::ATTESTATION)).ok(),
            attestation_token: get_text(attributes, name::ATTESTATION_TOKEN),
            progress: get_text(attributes, name::PROGRESS),
            error_message: get_text(attributes, name::ERROR_MESSAGE),
            error_type: get_text(attributes, name::ERROR_TYPE),
            outputs: json(name::OUTPUTS),
            request: get_text(attributes, name::REQUEST),
            refused: get_text(attributes, name::REFUSED),
            noticed_at: get_text(attributes, name::NOTICED_AT),
            waiting: get_text(attributes, name::WAITING),
            sealing: serde_json::from_value(json(name::SEALING)).ok(),
        }
    }

    /// Its status, if it is one of ours.
    pub fn status(&self) -> Option<Status> {
        Status::parse(self.status_text.as_deref()?)
    }

    /// Whether another provider runs it.
    pub fn is_foreign(&self) -> bool {
        self.provider_id
            .as_deref()
            .is_some_and(|provider| provider != PROVIDER)
    }

    /// Whether it was last written so long ago. One without a time is as old as can be.
    pub fn is_older(&self, age: Duration, now: OffsetDateTime) -> bool {
        self.updated_at
            .as_deref()
            .and_then(parse_timestamp)
            .is_none_or(|updated| updated + age <= now)
    }
}

/// The item's attribute `attestation`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attestation {
    /// How far it is.
    pub state: AttestationState,
    /// Why it attests.
    pub reason: Reason,
    /// 32 random bytes in hex, which the document must carry.
    pub nonce: String,
    /// Until when it may.
    pub expires_at: String,
    /// The execution that waits for it.
    pub execution_arn: String,
    /// When a document was last accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified_at: Option<String>,
    /// SHA-256 of the document that was accepted, in hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document_sha256: Option<String>,
    /// What the enclave found when it verified its own document: `passed`, `failed: RULE`,
    /// `unsigned`, or `not shown: RULE` where its document does not bear it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub self_check: Option<String>,
    /// The signed result for relying parties.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ear: Option<String>,
    /// What went wrong, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// How far an attestation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AttestationState {
    /// A nonce is issued, and no document accepted.
    Waiting,
    /// A document was accepted.
    Passed,
    /// A document was refused for what it says, or none came in time.
    Failed,
}

impl Attestation {
    /// As an attribute.
    pub fn to_attribute(&self) -> AttributeValue {
        crate::attributes::from_json(
            &serde_json::to_value(self).expect("nothing that JSON cannot express"),
        )
    }
}

/// The image of a deployment: the item's attribute `image`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// What was published.
    #[serde(flatten)]
    pub published: PublishedImage,
    /// What the enclave is given when it starts; PCR16 measures it.
    pub runtime_configuration: String,
    /// Whether the request allowed debug mode.
    #[serde(default)]
    pub enable_debug: bool,
}

/// An image whose measurements are known: a row of the images table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedImage {
    /// The name that requests call it by.
    pub reference: String,
    /// Where the EIF lies.
    pub bucket: String,
    /// Where the EIF lies in the bucket.
    pub key: String,
    /// SHA-256 of the EIF in hex.
    pub sha256: String,
    /// Bytes of the EIF.
    pub size: u64,
    /// What `image-builder` measured, as JSON text.
    pub measurements: String,
    /// What it runs on: `x86_64` or `aarch64`.
    #[serde(default = "x86_64")]
    pub architecture: String,
}

fn x86_64() -> String {
    "x86_64".to_owned()
}

impl PublishedImage {
    /// Reads a row.
    pub fn from_attributes(attributes: &Attributes) -> Result<Self, String> {
        let json = to_json(&AttributeValue::M(attributes.clone()));
        serde_json::from_value(json).map_err(|error| error.to_string())
    }
}

/// The register that the runtime configuration is measured into.
pub const RUNTIME_CONFIGURATION_PCR: u8 = 16;

/// What an enclave is given at its start.
pub fn runtime_configuration(enclave_id: &str) -> String {
    serde_json::json!({ "enclave_id": enclave_id }).to_string()
}

/// The value of [`RUNTIME_CONFIGURATION_PCR`] in an enclave that was given this.
pub fn runtime_register(configuration: &str) -> Pcr {
    let configuration = digest(&SHA384, configuration.as_bytes());
    Pcr::ZERO.extend(configuration.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attributes::{from_json, text};

    #[test]
    fn an_attestation_is_read_back() {
        let attestation = Attestation {
            state: AttestationState::Waiting,
            reason: Reason::Deploy,
            nonce: "00".repeat(32),
            expires_at: "2026-01-01T00:00:00Z".to_owned(),
            execution_arn: "arn".to_owned(),
            verified_at: None,
            document_sha256: None,
            self_check: None,
            ear: None,
            message: None,
        };
        let attributes = Attributes::from([
            (name::ID.to_owned(), text("a")),
            (name::ATTESTATION.to_owned(), attestation.to_attribute()),
        ]);
        let item = Enclave::from_attributes(&attributes);
        assert_eq!(item.attestation, Some(attestation));
    }

    #[test]
    fn attributes_of_a_wrong_type_are_absent() {
        let attributes = Attributes::from([
            (name::ID.to_owned(), text("a")),
            (name::STATUS.to_owned(), from_json(&7.into())),
            (name::ATTESTATION.to_owned(), text("passed")),
        ]);
        let item = Enclave::from_attributes(&attributes);
        assert_eq!((item.status(), item.attestation), (None, None));
    }

    #[test]
    fn the_runtime_configuration_is_exactly_what_agents_get() {
        assert_eq!(runtime_configuration("e-1"), r#"{"enclave_id":"e-1"}"#);
    }
}
