//! What agent and gate say to each other, as the payloads of invocations.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use link::control::{MAX_NONCE, MAX_SEALED_SECRET};
use serde::{Deserialize, Serialize};

use crate::self_check::SelfCheck;

/// A question to the gate.
#[derive(Debug, Serialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub(super) enum Question<'a> {
    /// Is a document wanted, or is there something for a sealed secret?
    Challenge {
        /// The enclave.
        enclave_id: &'a str,
        /// What it waits for before its workload starts.
        #[serde(skip_serializing_if = "Option::is_none")]
        waiting: Option<&'a str>,
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
    /// Is this one accepted, which was asked for to seal a secret?
    SealDocument {
        /// The enclave.
        enclave_id: &'a str,
        /// The nonce that names the request.
        nonce: &'a str,
        /// The document, in base64.
        document: &'a str,
    },
    /// The enclave has answered to a sealed secret, or makes no document for one.
    SealOutcome {
        /// The enclave.
        enclave_id: &'a str,
        /// The nonce that names the request.
        nonce: &'a str,
        /// Whether it has opened the secret.
        opened: bool,
        /// Its reason if it has not.
        message: &'a str,
    },
}

/// The answer to the first question.
#[derive(Debug, Deserialize)]
pub(super) struct ChallengeAnswer {
    /// None if no document is wanted. It must be said.
    #[serde(deserialize_with = "Option::deserialize")]
    pub(super) challenge: Option<GateChallenge>,
    /// What there is for a sealed secret; gates of earlier releases do not say.
    #[serde(default)]
    pub(super) sealing: Option<GateSealing>,
}

/// A challenge. When it ends is for the gate to say, whose clock is right.
#[derive(Debug, Deserialize)]
pub(super) struct GateChallenge {
    /// In hexadecimal.
    pub(super) nonce: String,
}

/// An operator wants to seal a secret, or has.
#[derive(Debug, Deserialize)]
pub(super) struct GateSealing {
    /// In hexadecimal: for the document, and the name of the request.
    pub(super) nonce: String,
    /// What was sealed, in base64, once it is.
    #[serde(default)]
    pub(super) sealed: Option<String>,
}

/// The answer to a document.
#[derive(Debug, Deserialize)]
pub(super) struct DocumentAnswer {
    /// Whether the gate is satisfied.
    pub(super) accepted: bool,
    /// Why, in one line.
    #[serde(default)]
    pub(super) message: String,
}

/// What was sealed to the enclave.
pub(super) fn sealed(base64: &str) -> Result<link::Bytes<MAX_SEALED_SECRET>, String> {
    let bytes = STANDARD
        .decode(base64)
        .map_err(|error| format!("the sealed secret is not base64: {error}"))?;
    link::Bytes::new(bytes)
        .ok_or_else(|| format!("the sealed secret has more than {MAX_SEALED_SECRET} bytes"))
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
            serde_json::to_value(Question::Challenge {
                enclave_id,
                waiting: None,
            })
            .unwrap(),
            json!({ "action": "challenge", "enclave_id": "e-1" })
        );
        let outcome = Question::SealOutcome {
            enclave_id,
            nonce: "00",
            opened: false,
            message: "no",
        };
        assert_eq!(
            serde_json::to_value(outcome).unwrap(),
            json!({ "action": "seal_outcome", "enclave_id": "e-1", "nonce": "00",
                "opened": false, "message": "no" })
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
        let sealing = |text| parse(text).unwrap().sealing;
        assert!(sealing(r#"{"challenge":null,"sealing":null}"#).is_none());
        let asked = sealing(r#"{"challenge":null,"sealing":{"nonce":"00"}}"#);
        assert!(asked.unwrap().sealed.is_none());
        for bad in [
            "{}",
            "null",
            r#"{"challenge":{}}"#,
            r#"{"challenge":1}"#,
            r#"{"challenge":null,"sealing":{}}"#,
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        for bad in ["", "0", "zz", &"00".repeat(MAX_NONCE + 1)] {
            assert!(nonce(bad).is_err(), "{bad}");
        }
        assert_eq!(&*nonce("00ff").unwrap(), [0, 0xff]);
        assert_eq!(&*sealed("AP8=").unwrap(), [0, 0xff]);
        for bad in ["~".to_owned(), "A".repeat(64 * 1024)] {
            assert!(sealed(&bad).is_err());
        }
    }
}
