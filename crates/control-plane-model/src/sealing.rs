//! A sealed secret on its way from an operator to an enclave: the item's attribute
//! `sealing`. The gate writes it, and neither the gate nor the table can read the secret.

use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::attributes::from_json;
use crate::instant::parse_timestamp;
use crate::status::Status;

/// Bytes of the nonce that an operator asks with: it names the request, too.
pub const NONCE_BYTES: usize = 32;
/// How long a request may stand, at most.
pub const MAX_LIFETIME: Duration = Duration::from_secs(60 * 60);
/// The statuses in which an enclave can be sealed to.
pub const STATUSES: [Status; 3] = [Status::Deploying, Status::Deployed, Status::Resuming];

/// The attribute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealing {
    /// How far it is.
    pub state: SealingState,
    /// [`NONCE_BYTES`] of the operator's in hexadecimal, which the document must carry.
    pub nonce: String,
    /// Until when the secret can be handed over.
    pub expires_at: String,
    /// What the secret is called, once it is sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The enclave's document in base64, once it is there and until something is sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document: Option<String>,
    /// What was sealed, in base64, until the enclave has answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<String>,
    /// Why the enclave refused, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// How far a sealed secret is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SealingState {
    /// A document is asked for.
    Asked,
    /// The document is there.
    Attested,
    /// What was sealed to the enclave is there.
    Sealed,
    /// The enclave has opened it, its agent says.
    Opened,
    /// The enclave has refused, its agent says.
    Refused,
}

impl Sealing {
    /// Whether it can still come to its end.
    pub fn is_open(&self, now: OffsetDateTime) -> bool {
        let is_settled = matches!(self.state, SealingState::Opened | SealingState::Refused);
        !is_settled && !self.is_expired(now)
    }

    /// Whether its time is up.
    pub fn is_expired(&self, now: OffsetDateTime) -> bool {
        parse_timestamp(&self.expires_at).is_none_or(|expires| expires <= now)
    }

    /// As an attribute.
    pub fn to_attribute(&self) -> AttributeValue {
        from_json(&serde_json::to_value(self).expect("nothing that JSON cannot express"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attributes::Attributes;
    use crate::item::{Enclave, name, timestamp};

    #[test]
    fn sealing_is_read_back_and_open_until_it_is_settled_or_expired() {
        let now = OffsetDateTime::UNIX_EPOCH;
        let mut sealing = Sealing {
            state: SealingState::Asked,
            nonce: "00".repeat(NONCE_BYTES),
            expires_at: timestamp(now + Duration::from_secs(60)),
            name: None,
            document: None,
            sealed: Some("AA==".to_owned()),
            message: None,
        };
        let attributes = Attributes::from([(name::SEALING.to_owned(), sealing.to_attribute())]);
        let read = Enclave::from_attributes(&attributes).sealing;
        assert_eq!(read.as_ref(), Some(&sealing));
        assert!(sealing.is_open(now));
        assert!(!sealing.is_open(now + Duration::from_secs(60)));
        sealing.state = SealingState::Refused;
        assert!(!sealing.is_open(now));
        sealing.state = SealingState::Sealed;
        "soon".clone_into(&mut sealing.expires_at);
        assert!(!sealing.is_open(now), "a time that cannot be read is past");
    }
}
