//! Sealed secrets, carried from an operator to an enclave: the document of the enclave's
//! key one way, what was sealed to it the other way, and the enclave's answer.
//!
//! The gate is no party to it. It can neither read a secret nor make one, since the
//! enclave opens only what the sender has signed whom its image names; and the operator
//! verifies the document, which the gate verifies only to keep others' from the item.

use std::time::Duration;

use attestation::{MAX_DOCUMENT, Nonce};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use control_plane_model::Failure;
use control_plane_model::attributes::{from_json, text};
use control_plane_model::item::{Enclave, Image, name, timestamp};
use control_plane_model::sealing::{MAX_LIFETIME, NONCE_BYTES, STATUSES, Sealing, SealingState};
use control_plane_model::store;
use control_plane_model::update::{Condition, Update, cut};
use sealed_secret::{MAX_SEALED, Sealed};
use serde::Deserialize;
use serde_json::{Value, json};
use thiserror::Error;
use time::OffsetDateTime;
use tracing::{info, warn};

use super::verdict::sealing_policy;
use super::{Gate, decode, refusal, unusable};

/// Characters of what agents say that are kept.
const MAX_TEXT: usize = 512;
/// Bytes of an item, DynamoDB's limit.
const MAX_ITEM: usize = 400 * 1024;

// A document and what was sealed are never on the item at the same time, and either
// leaves room for the rest of it.
const _: () = assert!(base64_length(MAX_DOCUMENT) < MAX_ITEM / 4);
const _: () = assert!(base64_length(MAX_SEALED) < MAX_ITEM / 4);

const fn base64_length(bytes: usize) -> usize {
    bytes.div_ceil(3) * 4
}

/// An operator's question. It replaces an earlier one, which a command that was
/// interrupted may have left.
#[derive(Debug, Deserialize)]
pub(super) struct Request {
    enclave_id: String,
    /// In hexadecimal: the operator's own, who trusts no other to be new.
    nonce: String,
    lifetime_seconds: u64,
}

/// An agent's answer to it.
#[derive(Debug, Deserialize)]
pub(super) struct Brought {
    enclave_id: String,
    nonce: String,
    /// In base64.
    document: String,
}

/// What an operator has sealed.
#[derive(Debug, Deserialize)]
pub(super) struct Put {
    enclave_id: String,
    nonce: String,
    /// In base64.
    sealed: String,
}

/// What an agent says of its enclave's answer.
#[derive(Debug, Deserialize)]
pub(super) struct Outcome {
    enclave_id: String,
    nonce: String,
    opened: bool,
    /// The enclave's reason to refuse.
    #[serde(default)]
    message: String,
}

/// Why a request cannot be gone on with.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
enum Closed {
    #[error("there is no such request to seal a secret, or another one has replaced it: ask again")]
    Replaced,
    #[error("the request to seal a secret expired at {0}: ask again, with more time")]
    Expired(String),
    #[error("the request to seal a secret is at another step, or is settled: ask again")]
    State,
}

impl From<Closed> for Failure {
    fn from(closed: Closed) -> Self {
        let kind = match closed {
            Closed::Replaced => "SealingReplaced",
            Closed::Expired(_) => "SealingExpired",
            Closed::State => "SealingState",
        };
        Self::new(kind, closed.to_string())
    }
}

/// The request that the nonce names, if its time is not up. What other providers have on
/// their items is no request.
fn find<'a>(item: &'a Enclave, nonce: &str, now: OffsetDateTime) -> Result<&'a Sealing, Closed> {
    let sealing = item.sealing.as_ref().filter(|_| !item.is_foreign());
    let sealing = sealing.filter(|sealing| sealing.nonce == nonce);
    let sealing = sealing.ok_or(Closed::Replaced)?;
    if sealing.is_expired(now) {
        return Err(Closed::Expired(sealing.expires_at.clone()));
    }
    Ok(sealing)
}

/// A write where the enclave runs, or is about to: over no request of a client's.
fn amend(id: &str) -> Update {
    Update::note(id).when(Condition::Status(STATUSES.to_vec()))
}

/// The write of what a request has become, if it is as it was.
fn step(id: &str, before: &Sealing, after: &Sealing) -> Update {
    let is = |path, value| Condition::Equal(path, value);
    let state = serde_json::to_value(before.state).expect("a text");
    amend(id)
        .when(is("sealing.nonce", text(before.nonce.as_str())))
        .when(is("sealing.state", from_json(&state)))
        .set(name::SEALING, after.to_attribute())
}

/// What an agent is given: the nonce that a document is asked for with, or what was
/// sealed.
pub(super) fn offer(item: &Enclave, now: OffsetDateTime) -> Option<Value> {
    let sealing = item.sealing.as_ref()?;
    if item.is_foreign() || !sealing.is_open(now) {
        return None;
    }
    match sealing.state {
        SealingState::Asked => Some(json!({ "nonce": sealing.nonce })),
        SealingState::Sealed => {
            Some(json!({ "nonce": sealing.nonce, "sealed": sealing.sealed.as_ref()? }))
        }
        _ => None,
    }
}

/// The write of what the enclave waits for, if that is news, and of what has expired.
pub(super) fn note(item: &Enclave, waiting: Option<&str>, now: OffsetDateTime) -> Option<Update> {
    let is_running = item
        .status()
        .is_some_and(|status| STATUSES.contains(&status));
    if item.is_foreign() || !is_running {
        return None;
    }
    let waiting = waiting
        .filter(|text| !text.is_empty())
        .map(|text| cut(text, MAX_TEXT));
    let expired = item.sealing.as_ref().filter(|sealing| {
        let is_heavy = sealing.document.is_some() || sealing.sealed.is_some();
        is_heavy && sealing.is_expired(now)
    });
    let update = match expired {
        Some(before) => step(&item.id, before, &emptied(before)),
        None if waiting == item.waiting => return None,
        None => amend(&item.id),
    };
    Some(match waiting {
        Some(waiting) => update.set(name::WAITING, text(waiting)),
        None => update.remove(name::WAITING),
    })
}

/// The request without what it carries.
fn emptied(sealing: &Sealing) -> Sealing {
    Sealing {
        document: None,
        sealed: None,
        ..sealing.clone()
    }
}

impl Gate {
    pub(super) async fn seal_request(&self, request: &Request) -> Result<Value, Failure> {
        let Request {
            enclave_id,
            nonce,
            lifetime_seconds,
        } = request;
        let is_nonce = hex::decode(nonce).is_ok_and(|bytes| bytes.len() == NONCE_BYTES)
            && nonce.bytes().all(|byte| !byte.is_ascii_uppercase());
        if !is_nonce {
            return Err(Failure::input(format!(
                "the nonce is not {NONCE_BYTES} bytes in lower-case hexadecimal"
            )));
        }
        let item = self.item(enclave_id).await?;
        let lifetime = Duration::from_secs(*lifetime_seconds).min(MAX_LIFETIME);
        let sealing = Sealing {
            state: SealingState::Asked,
            nonce: nonce.clone(),
            expires_at: timestamp(OffsetDateTime::now_utc() + lifetime),
            name: None,
            document: None,
            sealed: None,
            message: None,
        };
        let update = amend(enclave_id).set(name::SEALING, sealing.to_attribute());
        if item.is_foreign() || self.store.apply(&update).await? == store::Outcome::Lost {
            let status = item.status_text.as_deref().unwrap_or("without a status");
            return Err(Failure::new(
                "NotRunning",
                format!(
                    "{enclave_id} is {status}: secrets are sealed to an enclave that is being deployed, deployed or resuming"
                ),
            ));
        }
        info!(enclave_id, "a document is asked for, to seal a secret");
        Ok(json!({ "expires_at": sealing.expires_at }))
    }

    pub(super) async fn seal_document(&self, brought: &Brought) -> Result<Value, Failure> {
        let Brought {
            enclave_id: id,
            nonce,
            document,
        } = brought;
        let item = self.item(id).await?;
        let before = match find(&item, nonce, OffsetDateTime::now_utc()) {
            Ok(before) if before.state == SealingState::Asked => before,
            // The same again, whose answer was lost.
            Ok(before) if before.document.as_ref() == Some(document) => {
                return Ok(json!({ "accepted": true, "message": "it was accepted before" }));
            }
            Ok(_) => return Ok(refusal(&Closed::State.to_string(), None)),
            Err(closed) => return Ok(refusal(&closed.to_string(), None)),
        };
        let bytes = match decode(document) {
            Ok(bytes) => bytes,
            Err(why) => return Ok(refusal(&why, None)),
        };
        let image: Image = serde_json::from_str(item.image.as_deref().unwrap_or("null"))
            .map_err(|error| unusable(&error.into()))?;
        let policy = sealing_policy(&image).map_err(|error| unusable(&error))?;
        let expected = hex::decode(nonce).map_err(Failure::input)?;
        let verification = self
            .verifier
            .verify(&bytes, &policy, Nonce::Fresh(&expected));
        if let Err(rejection) = verification.outcome {
            warn!(enclave_id = id, %rejection, "a document for sealing is refused");
            return Ok(refusal(&rejection.to_string(), None));
        }
        let mut after = before.clone();
        after.state = SealingState::Attested;
        after.document = Some(document.clone());
        if self.store.apply(&step(id, before, &after)).await? == store::Outcome::Lost {
            return Ok(refusal(&Closed::Replaced.to_string(), None));
        }
        info!(enclave_id = id, "a document for sealing is accepted");
        Ok(json!({ "accepted": true, "message": "accepted" }))
    }

    pub(super) async fn seal_put(&self, put: &Put) -> Result<Value, Failure> {
        let Put {
            enclave_id: id,
            nonce,
            sealed,
        } = put;
        if sealed.len() > base64_length(MAX_SEALED) {
            return Err(Failure::input(format!(
                "the sealed secret has more than {MAX_SEALED} bytes"
            )));
        }
        let bytes = STANDARD.decode(sealed).map_err(Failure::input)?;
        let parsed = Sealed::parse(&bytes).map_err(Failure::input)?;
        let item = self.item(id).await?;
        let before = find(&item, nonce, OffsetDateTime::now_utc())?;
        if before.sealed.as_ref() == Some(sealed) {
            return Ok(json!({ "kept": true }));
        }
        if before.state != SealingState::Attested {
            return Err(Closed::State.into());
        }
        let mut after = emptied(before);
        after.state = SealingState::Sealed;
        after.name = Some(parsed.name().to_owned());
        after.sealed = Some(sealed.clone());
        if self.store.apply(&step(id, before, &after)).await? == store::Outcome::Lost {
            return Err(Closed::Replaced.into());
        }
        info!(
            enclave_id = id,
            name = parsed.name(),
            "a sealed secret waits for the agent"
        );
        Ok(json!({ "kept": true }))
    }

    pub(super) async fn seal_outcome(&self, outcome: &Outcome) -> Result<Value, Failure> {
        let Outcome {
            enclave_id,
            nonce,
            opened,
            message,
        } = outcome;
        let item = self.item(enclave_id).await?;
        let before = match find(&item, nonce, OffsetDateTime::now_utc()) {
            Ok(before) => before,
            // It has come too late for anybody, or is an earlier request's.
            Err(closed) => return Ok(json!({ "noted": false, "message": closed.to_string() })),
        };
        let is_expected = match before.state {
            SealingState::Sealed => true,
            // An image without sealed secrets makes no document for them.
            SealingState::Asked => !opened,
            _ => false,
        };
        if !is_expected {
            return Ok(json!({ "noted": false, "message": Closed::State.to_string() }));
        }
        let mut after = emptied(before);
        if *opened {
            after.state = SealingState::Opened;
        } else {
            after.state = SealingState::Refused;
            after.message = Some(cut(message, MAX_TEXT));
        }
        let noted = self.store.apply(&step(enclave_id, before, &after)).await?;
        info!(
            enclave_id,
            opened, "the enclave has answered to a sealed secret"
        );
        Ok(json!({ "noted": noted == store::Outcome::Done, "message": "" }))
    }
}

#[cfg(test)]
mod tests {
    use control_plane_model::status::Status;

    use super::*;

    const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

    fn item(state: SealingState) -> Enclave {
        Enclave {
            id: "e-1".to_owned(),
            status_text: Some("DEPLOYING".to_owned()),
            sealing: Some(Sealing {
                state,
                nonce: "aa".to_owned(),
                expires_at: timestamp(NOW + Duration::from_secs(60)),
                name: None,
                document: None,
                sealed: Some("sealed".to_owned()),
                message: None,
            }),
            ..Enclave::default()
        }
    }

    #[test]
    fn sealing_writes_touch_nothing_else_and_no_request_of_a_client() {
        let asked = item(SealingState::Asked);
        let before = asked.sealing.as_ref().unwrap();
        for update in [
            step("e-1", before, before),
            note(&asked, Some("the secret"), NOW).unwrap(),
            note(&asked, None, NOW + Duration::from_secs(60)).unwrap(),
        ] {
            let written = update.set.iter().map(|(name, _)| *name);
            for name in written.chain(update.remove.iter().copied()) {
                // Each of them is removed when this boot is over.
                assert!(name::OF_A_BOOT.contains(&name), "{name}");
                assert!([name::SEALING, name::WAITING].contains(&name), "{name}");
            }
            let status = Condition::Status(STATUSES.to_vec());
            assert!(update.conditions.contains(&status), "{update:?}");
        }
        for status in Status::ALL {
            let mut other = asked.clone();
            other.status_text = Some(status.name().to_owned());
            let noted = note(&other, Some("x"), NOW).is_some();
            assert_eq!(noted, STATUSES.contains(&status), "{status}");
        }
    }

    #[test]
    fn sealing_offers_an_agent_what_is_its_turn() {
        let offered = |state| offer(&item(state), NOW);
        assert_eq!(offered(SealingState::Asked), Some(json!({"nonce": "aa"})));
        assert_eq!(
            offered(SealingState::Sealed),
            Some(json!({"nonce": "aa", "sealed": "sealed"}))
        );
        for state in [
            SealingState::Attested,
            SealingState::Opened,
            SealingState::Refused,
        ] {
            assert_eq!(offered(state), None, "{state:?}");
        }
        let late = NOW + Duration::from_secs(60);
        assert_eq!(offer(&item(SealingState::Sealed), late), None);
    }

    #[test]
    fn sealing_that_expired_carries_nothing_any_more() {
        let sealed = item(SealingState::Sealed);
        assert_eq!(note(&sealed, None, NOW), None);
        let late = NOW + Duration::from_secs(60);
        let update = note(&sealed, None, late).unwrap();
        let emptied = emptied(sealed.sealing.as_ref().unwrap());
        let written = (name::SEALING, emptied.to_attribute());
        assert!(update.set.contains(&written));
        assert!(
            find(&sealed, "aa", late)
                .unwrap_err()
                .to_string()
                .contains("expired")
        );
        assert_eq!(find(&sealed, "bb", NOW), Err(Closed::Replaced));
        assert_eq!(find(&Enclave::default(), "aa", NOW), Err(Closed::Replaced));
    }

    #[test]
    fn waiting_is_written_when_it_is_news() {
        let mut deploying = item(SealingState::Opened);
        deploying.waiting = Some("a".to_owned());
        assert_eq!(note(&deploying, Some("a"), NOW), None);
        let changed = note(&deploying, Some("b"), NOW).unwrap();
        assert!(changed.set.contains(&(name::WAITING, text("b"))));
        let over = note(&deploying, None, NOW).unwrap();
        assert_eq!(over.remove, [name::WAITING]);
        let long = note(&deploying, Some(&"x".repeat(1000)), NOW).unwrap();
        assert!(
            long.set
                .contains(&(name::WAITING, text(format!("{}…", "x".repeat(MAX_TEXT)))))
        );
    }
}
