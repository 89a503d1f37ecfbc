//! What agent and gate say to each other, as the payloads of invocations.

use link::control::MAX_NONCE;
use serde::{Deserialize, Serialize};

use crate::self_check::SelfCheck;

/// A question to the gate.
#[derive(Debug, Serialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub(super) enum Question<'a> {
    /// Is a document wanted?
    Challenge {
        /// The enclave.
        enclave_id: &'a str,
    },
    /// Is this one accepted?
    Document {
        /// The enclave.
        enclave_id: &'a str,
        /// The document, in base64.
        document: &'a str,
        /// What the enclave found when it verified its own, if it has told.
        #[serde(skip_serializing_if = "Option::is_none")]
        self_check: Option<&'a SelfCheck>,
    },
}

/// The answer to the first question.
#[derive(Debug, Deserialize)]
pub(super) struct ChallengeAnswer {
    /// None if no document is wanted. It must be said.
    #[serde(deserialize_with = "Option::deserialize")]
    pub(super) challenge: Option<GateChallenge>,
}

/// A challenge. When it ends is for the gate to say, whose clock is right.
#[derive(Debug, Deserialize)]
pub(super) struct GateChallenge {
    /// In hexadecimal.
    pub(super) nonce: String,
}

/// The answer to the second question.
#[derive(Debug, Deserialize)]
pub(super) struct DocumentAnswer {
    /// Whether the gate is satisfied.
    pub(super) accepted: bool,
    /// Why, in one line.
    #[serde(default)]
    pub(super) message: String,
}

/// The bytes of a nonce.
pub(super) fn nonce(hexadecimal: &str) -> Result<link::Bytes<MAX_NONCE>, String> {
    let bytes = hex::decode(hexadecimal).map_err(|error| format!("the nonce: {error}"))?;
    if bytes.is_empty() {
        return Err("the nonce is empty".to_owned());
    }
    link::Bytes::new(bytes).ok_or_else(|| format!("the nonce has more than {MAX_NONCE} bytes"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn questions_are_written_as_the_gate_reads_them() {
        let enclave_id = "e-1";
        assert_eq!(
            serde_json::to_value(Question::Challenge { enclave_id }).unwrap(),
            json!({ "action": "challenge", "enclave_id": "e-1" })
        );
        let document = "AAE=";
        assert_eq!(
            serde_json::to_value(Question::Document {
                enclave_id,
                document,
                self_check: None,
            })
            .unwrap(),
            json!({ "action": "document", "enclave_id": "e-1", "document": "AAE=" })
        );
        let checked = SelfCheck::new(link::control::CheckOutcome::Passed, "", "", &[0, 1]);
        let question = serde_json::to_value(Question::Document {
            enclave_id,
            document,
            self_check: Some(&checked),
        });
        assert_eq!(
            question.unwrap()["self_check"],
            json!({ "outcome": "passed", "rule": "", "detail": "", "document": "AAE=" })
        );
    }

    #[test]
    fn answers_of_another_kind_are_refused() {
        let parse = serde_json::from_str::<ChallengeAnswer>;
        assert!(parse(r#"{"challenge":null}"#).unwrap().challenge.is_none());
        assert!(
            parse(r#"{"challenge":{"nonce":"00","expires_at":"x"}}"#)
                .unwrap()
                .challenge
                .is_some()
        );
        for bad in ["{}", "null", r#"{"challenge":{}}"#, r#"{"challenge":1}"#] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        for bad in ["", "0", "zz", &"00".repeat(MAX_NONCE + 1)] {
            assert!(nonce(bad).is_err(), "{bad}");
        }
        assert_eq!(&*nonce("00ff").unwrap(), [0, 0xff]);
    }
}
