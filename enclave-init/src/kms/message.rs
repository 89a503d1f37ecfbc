//! Requests and answers of KMS, as far as they change on the way: a request gets a
//! `Recipient`, and an answer's `CiphertextForRecipient` becomes the member that whoever
//! asked without a recipient expects.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::HeaderMap;
use hyper::StatusCode;
use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};
use zeroize::Zeroizing;

use super::error::KmsError;
use crate::aws::Answer;

/// How KMS is to encrypt: the one way that it has.
const KEY_ENCRYPTION_ALGORITHM: &str = "RSAES_OAEP_SHA_256";
const RECIPIENT: &str = "Recipient";
const SEALED: &str = "CiphertextForRecipient";
const KEY_ID: &str = "KeyId";

/// The member that has the plaintext which a call releases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Released {
    Plaintext,
    PrivateKeyPlaintext,
    SharedSecret,
}

impl Released {
    /// What an operation releases, if it takes a recipient.
    pub(super) fn by(operation: &str) -> Option<Self> {
        match operation {
            "Decrypt" | "GenerateDataKey" | "GenerateRandom" => Some(Self::Plaintext),
            "GenerateDataKeyPair" => Some(Self::PrivateKeyPlaintext),
            "DeriveSharedSecret" => Some(Self::SharedSecret),
            _ => None,
        }
    }

    const fn member(self) -> &'static str {
        match self {
            Self::Plaintext => "Plaintext",
            Self::PrivateKeyPlaintext => "PrivateKeyPlaintext",
            Self::SharedSecret => "SharedSecret",
        }
    }
}

/// The members of a JSON object, each at most once: of two, KMS might take the other one.
#[derive(Debug)]
struct Members(BTreeMap<String, Box<RawValue>>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Members;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = BTreeMap::new();
                while let Some((name, value)) = map.next_entry::<String, Box<RawValue>>()? {
                    if members.insert(name, value).is_some() {
                        return Err(A::Error::custom("a member is there twice"));
                    }
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Object)
    }
}

impl Members {
    fn of_request(body: &[u8]) -> Result<Self, KmsError> {
        let body = if body.is_empty() { b"{}" } else { body };
        // The parser's own words may hold some of the text.
        serde_json::from_slice(body).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            KmsError::Request(format!("line {line}, column {column}"))
        })
    }

    /// A member that is there, and is not null.
    fn get(&self, name: &str) -> Option<&RawValue> {
        self.0
            .get(name)
            .map(AsRef::as_ref)
            .filter(|value| value.get() != "null")
    }

    fn text(&self, name: &str) -> Option<String> {
        serde_json::from_str(self.get(name)?.get()).ok()
    }
}

/// Whether a request names a recipient itself: then it has a key and a document of its
/// own, and opens the answer itself.
pub(super) fn has_recipient(body: &[u8]) -> Result<bool, KmsError> {
    Ok(Members::of_request(body)?.get(RECIPIENT).is_some())
}

/// The request with this document's enclave as its recipient, and the key that it names.
pub(super) fn with_recipient(
    body: &[u8],
    document: &[u8],
) -> Result<(Zeroizing<Vec<u8>>, Option<String>), KmsError> {
    let Members(mut members) = Members::of_request(body)?;
    let recipient = json!({
        "KeyEncryptionAlgorithm": KEY_ENCRYPTION_ALGORITHM,
        "AttestationDocument": STANDARD.encode(document),
    });
    let recipient = to_raw_value(&recipient).map_err(|error| not_written(&error))?;
    members.insert(RECIPIENT.to_owned(), recipient);
    let body = serde_json::to_vec(&members).map_err(|error| not_written(&error))?;
    let key_id = Members(members).text(KEY_ID);
    Ok((Zeroizing::new(body), key_id))
}

fn not_written(error: &serde_json::Error) -> KmsError {
    KmsError::Request(error.to_string())
}

/// An answer to a request with a recipient, taken apart.
#[derive(Debug)]
pub(super) struct AnswerMembers {
    members: Members,
    headers: HeaderMap,
}

impl AnswerMembers {
    pub(super) fn parse(answer: Answer) -> Result<Self, KmsError> {
        Ok(Self {
            members: serde_json::from_slice(&answer.body).map_err(|_| KmsError::Unopened)?,
            headers: answer.headers,
        })
    }

    /// Takes out what is encrypted to the recipient. KMS never sends the plaintext besides.
    pub(super) fn take_sealed(&mut self, released: Released) -> Result<Vec<u8>, KmsError> {
        let in_clear = self.members.0.remove(released.member());
        if in_clear.is_some_and(|value| !matches!(value.get(), "null" | "\"\"")) {
            return Err(KmsError::InClear);
        }
        let sealed = self.members.text(SEALED).ok_or(KmsError::Unopened)?;
        self.members.0.remove(SEALED);
        STANDARD.decode(sealed).map_err(|_| KmsError::Unopened)
    }

    /// Refuses an answer of another key than was asked for, as far as the name that was
    /// asked for tells: behind an alias there may be any key.
    pub(super) fn check_key(&self, asked: Option<&str>) -> Result<(), KmsError> {
        let Some(asked) = asked else {
            return Ok(());
        };
        let answered = self.members.text(KEY_ID).unwrap_or_default();
        let is_arn = asked.starts_with("arn:");
        let is_alias = asked.starts_with("alias/") || (is_arn && asked.contains(":alias/"));
        let is_asked = match answered.rsplit_once('/') {
            _ if is_alias => true,
            _ if is_arn => asked == answered,
            Some((_, id)) => id == asked,
            None => false,
        };
        if is_asked {
            return Ok(());
        }
        Err(KmsError::OtherKey {
            asked: plain_text::plain(asked),
            answered: plain_text::plain(&answered),
        })
    }

    /// The answer as it would be without a recipient.
    pub(super) fn into_answer(self, released: Released, plaintext: &[u8]) -> Answer {
        let Members(members) = self.members;
        // It is made at its full length at once, so that no copy of a part is left behind.
        let others: usize = members
            .iter()
            // Quotes, colon and comma; a name may need escapes.
            .map(|(name, value)| name.len() * 6 + value.get().len() + 4)
            .sum();
        let encoded = plaintext.len().div_ceil(3) * 4;
        let length = others + released.member().len() + encoded + 8;
        let mut body = Zeroizing::new(Vec::with_capacity(length));
        body.push(b'{');
        for (name, value) in &members {
            body.extend_from_slice(json!(name).to_string().as_bytes());
            body.push(b':');
            body.extend_from_slice(value.get().as_bytes());
            body.push(b',');
        }
        body.extend_from_slice(b"\"");
        body.extend_from_slice(released.member().as_bytes());
        body.extend_from_slice(b"\":\"");
        let start = body.len();
        body.resize(start + encoded, 0);
        let room = body.get_mut(start..).unwrap_or_default();
        // There is room for it.
        let _ = STANDARD.encode_slice(plaintext, room);
        body.extend_from_slice(b"\"}");
        Answer {
            status: StatusCode::OK,
            headers: self.headers,
            body,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn answer(body: &Value) -> Result<AnswerMembers, KmsError> {
        AnswerMembers::parse(Answer {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            body: body.to_string().into_bytes().into(),
        })
    }

    #[test]
    fn kms_requests_get_a_recipient_and_keep_the_rest() {
        let given =
            r#"{"KeyId": "alias/x", "CiphertextBlob":"AA==", "Big":12345678901234567890.5}"#;
        let (body, key_id) = with_recipient(given.as_bytes(), b"document").unwrap();
        let text = std::str::from_utf8(&body).unwrap();
        assert!(text.contains("12345678901234567890.5"), "{text}");
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["CiphertextBlob"], "AA==");
        let recipient = json!({
            "KeyEncryptionAlgorithm": "RSAES_OAEP_SHA_256",
            "AttestationDocument": STANDARD.encode("document"),
        });
        assert_eq!(body["Recipient"], recipient);
        assert_eq!(key_id.as_deref(), Some("alias/x"));
        assert_eq!(with_recipient(b"", b"").unwrap().1, None);
    }

    #[test]
    fn kms_requests_with_a_recipient_of_their_own_are_known() {
        for (body, expected) in [
            (r#"{"Recipient":{}}"#, true),
            (r#"{"Recip\u0069ent":{}}"#, true),
            (r#"{"Recipient":null}"#, false),
            (r#"{"recipient":{}}"#, false),
            ("", false),
        ] {
            assert_eq!(has_recipient(body.as_bytes()).unwrap(), expected, "{body}");
        }
        for body in [
            "[]",
            "{",
            "x",
            r#"{"Recipient":null,"Recipient":{}}"#,
            r#"{"A":1,"\u0041":2}"#,
        ] {
            let found = has_recipient(body.as_bytes());
            assert!(matches!(found, Err(KmsError::Request(_))), "{body}");
        }
    }

    #[test]
    fn kms_answers_become_those_that_were_asked_for() {
        for released in [
            Released::Plaintext,
            Released::PrivateKeyPlaintext,
            Released::SharedSecret,
        ] {
            for plaintext in [&b""[..], b"s", b"se", b"secret", &[0xff; 4096]] {
                let mut members = answer(&json!({
                    "CiphertextForRecipient": "AQI=",
                    released.member(): "",
                    "KeyId": "arn:aws:kms:eu-west-1:1:key/a",
                    "na\"me": {"deep": [1, 2]},
                }))
                .unwrap();
                assert_eq!(members.take_sealed(released).unwrap(), [1, 2]);
                let answer = members.into_answer(released, plaintext);
                assert!(answer.body.len() <= answer.body.capacity());
                let body: Value = serde_json::from_slice(&answer.body).unwrap();
                let expected = json!({
                    released.member(): STANDARD.encode(plaintext),
                    "KeyId": "arn:aws:kms:eu-west-1:1:key/a",
                    "na\"me": {"deep": [1, 2]},
                });
                assert_eq!(body, expected);
            }
        }
    }

    #[test]
    fn kms_answers_in_clear_are_refused() {
        for body in [
            json!({"Plaintext": "AA=="}),
            json!({"Plaintext": "AA==", "CiphertextForRecipient": "AA=="}),
            json!({"Plaintext": [], "CiphertextForRecipient": "AA=="}),
        ] {
            let sealed = answer(&body).unwrap().take_sealed(Released::Plaintext);
            assert!(matches!(sealed, Err(KmsError::InClear)), "{body}");
        }
        for body in [
            json!({}),
            json!({"Plaintext": null, "CiphertextForRecipient": null}),
            json!({"CiphertextForRecipient": "?"}),
            json!({"CiphertextForRecipient": 7}),
        ] {
            let sealed = answer(&body).unwrap().take_sealed(Released::Plaintext);
            assert!(matches!(sealed, Err(KmsError::Unopened)), "{body}");
        }
        assert!(matches!(answer(&json!([])), Err(KmsError::Unopened)));
    }

    #[test]
    fn kms_answers_are_of_the_key_that_was_asked_for() {
        let arn = "arn:aws:kms:eu-west-1:111122223333:key/1234";
        let other = "arn:aws:kms:eu-west-1:444455556666:key/1234";
        let of = |answered: &str| answer(&json!({ "KeyId": answered })).unwrap();
        for asked in [
            None,
            Some(arn),
            Some("1234"),
            Some("alias/a"),
            Some("arn:aws:kms:eu-west-1:1:alias/a"),
        ] {
            assert!(of(arn).check_key(asked).is_ok(), "{asked:?}");
        }
        for (answered, asked) in [
            (other, arn),
            ("", arn),
            (arn, "123"),
            (arn, ""),
            ("", "1234"),
        ] {
            let error = of(answered).check_key(Some(asked)).unwrap_err();
            assert!(matches!(error, KmsError::OtherKey { .. }), "{asked}");
        }
        assert!(answer(&json!({})).unwrap().check_key(Some(arn)).is_err());
    }
}
