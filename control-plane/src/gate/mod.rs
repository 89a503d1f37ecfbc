//! The attestation gate: it issues nonces for workflows that wait, verifies the
//! documents that agents bring, and lets the workflows go on.
//!
//! Nothing is decided by what the agent says of itself. A document counts if it is
//! signed under the pinned root, carries the nonce of this item's challenge, and
//! holds the published measurements and the configuration that names this enclave.

mod ear;
mod sealing;
mod self_check;
mod trust;
mod verdict;

use std::time::Duration;

use attestation::{MAX_DOCUMENT, Verifier};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use control_plane_model::Failure;
use control_plane_model::attributes::text;
use control_plane_model::execution::Reason;
use control_plane_model::item::{
    Attestation, AttestationState, Enclave, Image, name, parse_timestamp, timestamp,
};
use control_plane_model::status::Status;
use control_plane_model::store::{Outcome, Store};
use control_plane_model::update::{Condition, Update};
use serde::Deserialize;
use serde_json::{Value, json};
use time::OffsetDateTime;
use tracing::{info, warn};

use crate::validation::SUPERSEDED;
use crate::workflows::{Sent, Workflows};

use self_check::SelfCheck;

pub use ear::EarSigner;
pub use trust::verifier;
pub use verdict::{UnusableImage, Verdict, judge, policy};

/// The error that ends an execution whose enclave is another one.
pub const ATTESTATION_REFUSED: &str = "AttestationRefused";
/// Bytes of a nonce.
const NONCE_BYTES: usize = 32;
/// How long a nonce may be good for, at most.
const MAX_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// What the gate is asked.
#[derive(Debug, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
enum Question {
    /// By a workflow: a nonce, and to be told through the token.
    Issue(Issue),
    /// By an agent: whether there is a challenge, or something for a sealed secret.
    Challenge {
        enclave_id: String,
        /// What the enclave waits for before its workload starts.
        #[serde(default)]
        waiting: Option<String>,
    },
    /// By an agent: a document, in base64.
    Document {
        enclave_id: String,
        document: String,
        /// What the enclave found when it verified its own.
        #[serde(default)]
        self_check: Option<SelfCheck>,
    },
    /// By anybody: the keys that results are signed with.
    Jwks {},
    /// By an operator: a document of the key that secrets are sealed to.
    SealRequest(sealing::Request),
    /// By an agent: that document, in base64.
    SealDocument(sealing::Brought),
    /// By an operator: what was sealed to that key, in base64.
    SealPut(sealing::Put),
    /// By an agent: what the enclave said to it.
    SealOutcome(sealing::Outcome),
}

/// A workflow's question.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Issue {
    /// Whose item.
    pub enclave_id: String,
    /// How to answer the workflow.
    pub task_token: String,
    /// Why.
    pub reason: Reason,
    /// The workflow.
    pub execution_arn: String,
    /// How long the nonce is good for.
    pub lifetime_seconds: u64,
}

impl Issue {
    /// The write that makes a challenge of it. It demands that the workflow may
    /// ask: that it owns the item, or on a schedule that the item is deployed.
    pub fn update(&self, item: &Enclave, nonce: &[u8], now: OffsetDateTime) -> Update {
        let lifetime = Duration::from_secs(self.lifetime_seconds).min(MAX_LIFETIME);
        let mut attestation = Attestation {
            state: AttestationState::Waiting,
            reason: self.reason,
            nonce: hex::encode(nonce),
            expires_at: timestamp(now + lifetime),
            execution_arn: self.execution_arn.clone(),
            verified_at: None,
            document_sha256: None,
            self_check: None,
            ear: None,
            message: None,
        };
        let update = Update::amend(&self.enclave_id, now);
        let update = if self.reason == Reason::Schedule {
            // Until there is a new result the last one stands.
            if let Some(last) = &item.attestation {
                attestation.verified_at.clone_from(&last.verified_at);
                attestation.ear.clone_from(&last.ear);
            }
            update.when(Condition::Status(vec![Status::Deployed]))
        } else {
            update.when(Condition::Equal(
                name::EXECUTION_ARN,
                text(self.execution_arn.as_str()),
            ))
        };
        update
            .set(name::ATTESTATION, attestation.to_attribute())
            .set(name::ATTESTATION_TOKEN, text(self.task_token.as_str()))
            // It may be of an earlier boot; the agent tells it again.
            .remove(name::WAITING)
    }
}

/// Whether an attestation can still be answered: it waits, or was answered and the
/// workflow not told.
fn open(item: &Enclave, now: OffsetDateTime) -> Option<&Attestation> {
    let attestation = item.attestation.as_ref()?;
    let untold = item.attestation_token.is_some();
    let waits = attestation.state == AttestationState::Waiting
        || (attestation.state == AttestationState::Passed && untold);
    let good = parse_timestamp(&attestation.expires_at).is_some_and(|expires| now < expires);
    (waits && good).then_some(attestation)
}

/// The write of a verdict, if the challenge is still the same.
fn settle(item: &Enclave, attestation: &Attestation, now: OffsetDateTime) -> Update {
    Update::amend(&item.id, now)
        .when(Condition::Equal("attestation.state", text("waiting")))
        .when(Condition::Equal(
            "attestation.nonce",
            text(attestation.nonce.as_str()),
        ))
        .set(name::ATTESTATION, attestation.to_attribute())
}

/// The write that forgets a token that was used.
fn forget_token(item: &Enclave, token: &str, now: OffsetDateTime) -> Update {
    Update::amend(&item.id, now)
        .when(Condition::Equal(name::ATTESTATION_TOKEN, text(token)))
        .remove(name::ATTESTATION_TOKEN)
}

/// The gate.
#[derive(Debug)]
pub struct Gate {
    store: Store,
    workflows: Workflows,
    verifier: Verifier,
    ear: Option<EarSigner>,
}

impl Gate {
    /// A gate before these workflows. Without a signer, results are not signed.
    pub fn new(
        store: Store,
        workflows: Workflows,
        verifier: Verifier,
        ear: Option<EarSigner>,
    ) -> Self {
        Self {
            store,
            workflows,
            verifier,
            ear,
        }
    }

    /// Handles an invocation.
    pub async fn handle(&self, event: Value) -> Result<Value, Failure> {
        match serde_json::from_value(event).map_err(Failure::input)? {
            Question::Issue(issue) => self.issue(&issue).await,
            Question::Challenge {
                enclave_id,
                waiting,
            } => self.challenge(&enclave_id, waiting.as_deref()).await,
            Question::Document {
                enclave_id,
                document,
                self_check,
            } => {
                self.document(&enclave_id, &document, self_check.as_ref())
                    .await
            }
            Question::Jwks {} => match &self.ear {
                Some(ear) => ear.jwks().await,
                None => Err(Failure::unset("EAR_KEY_ID")),
            },
            Question::SealRequest(request) => self.seal_request(&request).await,
            Question::SealDocument(brought) => self.seal_document(&brought).await,
            Question::SealPut(put) => self.seal_put(&put).await,
            Question::SealOutcome(outcome) => self.seal_outcome(&outcome).await,
        }
    }

    async fn issue(&self, issue: &Issue) -> Result<Value, Failure> {
        let mut nonce = [0; NONCE_BYTES];
        SystemRandom::new()
            .fill(&mut nonce)
            .map_err(Failure::internal)?;
        let item = self.item(&issue.enclave_id).await?;
        let update = issue.update(&item, &nonce, OffsetDateTime::now_utc());
        if self.store.apply(&update).await? == Outcome::Lost {
            return Err(Failure::new(
                SUPERSEDED,
                format!("{} is no longer this execution's", issue.enclave_id),
            ));
        }
        info!(
            enclave_id = issue.enclave_id,
            reason = issue.reason.name(),
            lifetime_seconds = issue.lifetime_seconds,
            "a challenge is issued"
        );
        Ok(json!({ "issued": true }))
    }

    async fn challenge(&self, id: &str, waiting: Option<&str>) -> Result<Value, Failure> {
        let now = OffsetDateTime::now_utc();
        let item = self.item(id).await?;
        let challenge = open(&item, now).map(|attestation| {
            json!({ "nonce": attestation.nonce, "expires_at": attestation.expires_at })
        });
        if let Some(note) = sealing::note(&item, waiting, now) {
            // If it is lost, the next question brings it again.
            self.store.apply(&note).await?;
        }
        let sealing = sealing::offer(&item, now);
        Ok(json!({ "challenge": challenge, "sealing": sealing }))
    }

    async fn document(
        &self,
        id: &str,
        document: &str,
        self_check: Option<&SelfCheck>,
    ) -> Result<Value, Failure> {
        let now = OffsetDateTime::now_utc();
        let item = self.item(id).await?;
        let document = match decode(document) {
            Ok(document) => document,
            Err(why) => return Ok(refusal(&why, None)),
        };
        let hash = hex::encode(digest(&SHA256, &document));
        let Some(attestation) = open(&item, now) else {
            let again = item.attestation.as_ref().is_some_and(|attestation| {
                attestation.document_sha256.as_deref() == Some(hash.as_str())
            });
            return Ok(if again {
                json!({ "accepted": true, "message": "it was accepted before", "report": null })
            } else {
                refusal(&closed(&item, now), None)
            });
        };
        let image: Image = serde_json::from_str(item.image.as_deref().unwrap_or("null"))
            .map_err(|error| unusable(&error.into()))?;
        let nonce = hex::decode(&attestation.nonce).map_err(Failure::internal)?;
        let policy = policy(&image).map_err(|error| unusable(&error))?;
        let verifier = &self.verifier;
        let (verdict, report) = judge(&document, verifier, &policy, &nonce);
        let answer = serde_json::to_value(&report).map_err(Failure::internal)?;
        match verdict {
            Verdict::Accepted => {
                let mut passed = attestation.clone();
                passed.state = AttestationState::Passed;
                passed.verified_at = Some(timestamp(now));
                passed.document_sha256 = Some(hash);
                passed.self_check = self_check
                    .map(|found| found.judge(&image, verifier))
                    .transpose()
                    .map_err(|error| unusable(&error))?;
                if let Some(ear) = &self.ear {
                    let seconds = u64::try_from(now.unix_timestamp()).unwrap_or_default();
                    let name = &image.published.reference;
                    passed.ear = Some(ear.sign(&report, &document, name, &nonce, seconds).await?);
                }
                self.accept(&item, &passed, now).await?;
                info!(
                    enclave_id = id,
                    reason = passed.reason.name(),
                    "a document is accepted"
                );
                Ok(json!({ "accepted": true, "message": "accepted", "report": answer }))
            }
            Verdict::Wrong(why) => {
                let mut failed = attestation.clone();
                failed.state = AttestationState::Failed;
                failed.message = Some(why.clone());
                self.refuse(&item, &failed, &why, now).await?;
                warn!(
                    enclave_id = id,
                    reason = why,
                    "the enclave is not what was asked for"
                );
                Ok(refusal(&why, Some(&answer)))
            }
            Verdict::Refused(why) => {
                warn!(enclave_id = id, reason = why, "a document is refused");
                Ok(refusal(&why, Some(&answer)))
            }
        }
    }

    /// Writes the result, and then tells the workflow. The token stays on the item
    /// until it was told: whatever fails in between, the agent's next try does the
    /// rest.
    async fn accept(
        &self,
        item: &Enclave,
        passed: &Attestation,
        now: OffsetDateTime,
    ) -> Result<(), Failure> {
        // A document for the same nonce may have been first: that is as good.
        self.store.apply(&settle(item, passed, now)).await?;
        let Some(token) = &item.attestation_token else {
            return Ok(());
        };
        let output = json!({ "verified_at": passed.verified_at }).to_string();
        if self.workflows.succeed(token, output).await? == Sent::TooLate {
            info!(
                enclave_id = item.id,
                "the execution was notified before, or has ended"
            );
        }
        self.store.apply(&forget_token(item, token, now)).await?;
        Ok(())
    }

    async fn refuse(
        &self,
        item: &Enclave,
        failed: &Attestation,
        why: &str,
        now: OffsetDateTime,
    ) -> Result<(), Failure> {
        let Some(token) = &item.attestation_token else {
            return Ok(());
        };
        // If this is told and not written, the error handler writes it.
        let cause = format!("the enclave is not what was asked for: {why}");
        self.workflows
            .fail(token, ATTESTATION_REFUSED, &cause)
            .await?;
        let update = settle(item, failed, now).remove(name::ATTESTATION_TOKEN);
        self.store.apply(&update).await?;
        Ok(())
    }

    async fn item(&self, id: &str) -> Result<Enclave, Failure> {
        self.store
            .get(id)
            .await?
            .ok_or_else(|| Failure::new("UnknownEnclave", format!("there is no enclave {id}")))
    }
}

fn decode(text: &str) -> Result<Vec<u8>, String> {
    if text.len() > MAX_DOCUMENT.div_ceil(3) * 4 {
        return Err(format!("the document is larger than {MAX_DOCUMENT} bytes"));
    }
    STANDARD
        .decode(text)
        .map_err(|error| format!("the document is not base64: {error}"))
}

fn closed(item: &Enclave, now: OffsetDateTime) -> String {
    let Some(attestation) = &item.attestation else {
        return "no challenge was issued for this enclave".to_owned();
    };
    let expired = parse_timestamp(&attestation.expires_at).is_none_or(|expires| expires <= now);
    match attestation.state {
        AttestationState::Waiting if expired => {
            format!("the challenge expired at {}", attestation.expires_at)
        }
        AttestationState::Failed => "the challenge was answered with a wrong document".to_owned(),
        _ => "the challenge was answered before".to_owned(),
    }
}

fn refusal(message: &str, report: Option<&Value>) -> Value {
    json!({ "accepted": false, "message": message, "report": report })
}

fn unusable(error: &UnusableImage) -> Failure {
    Failure::new("UnusableImage", error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

    fn issue(reason: Reason) -> Issue {
        Issue {
            enclave_id: "e-1".to_owned(),
            task_token: "token".to_owned(),
            reason,
            execution_arn: "arn".to_owned(),
            lifetime_seconds: 600,
        }
    }

    fn waiting() -> Enclave {
        Enclave {
            id: "e-1".to_owned(),
            attestation: Some(Attestation {
                state: AttestationState::Waiting,
                reason: Reason::Deploy,
                nonce: "00".repeat(32),
                expires_at: timestamp(NOW + Duration::from_secs(600)),
                execution_arn: "arn".to_owned(),
                verified_at: Some("before".to_owned()),
                document_sha256: None,
                self_check: None,
                ear: Some("token".to_owned()),
                message: None,
            }),
            attestation_token: Some("token".to_owned()),
            ..Enclave::default()
        }
    }

    #[test]
    fn a_challenge_is_open_until_it_is_answered_or_expired() {
        let mut item = waiting();
        assert!(open(&item, NOW).is_some());
        assert!(open(&item, NOW + Duration::from_secs(600)).is_none());
        let attestation = item.attestation.as_mut().unwrap();
        attestation.state = AttestationState::Passed;
        assert!(open(&item, NOW).is_some(), "the workflow was not told yet");
        item.attestation_token = None;
        assert!(open(&item, NOW).is_none());
    }

    #[test]
    fn a_deployment_must_own_the_item_and_a_schedule_must_find_it_deployed() {
        let deploy = issue(Reason::Deploy).update(&waiting(), &[1; 32], NOW);
        let owner = Condition::Equal(name::EXECUTION_ARN, text("arn"));
        assert!(deploy.conditions.contains(&owner));
        let schedule = issue(Reason::Schedule).update(&waiting(), &[1; 32], NOW);
        assert!(
            schedule
                .conditions
                .contains(&Condition::Status(vec![Status::Deployed]))
        );
        let attribute = |update: &Update| {
            let (_, value) = update
                .set
                .iter()
                .find(|(name, _)| *name == name::ATTESTATION)
                .unwrap();
            control_plane_model::attributes::to_json(value)
        };
        assert_eq!(attribute(&schedule)["ear"], "token");
        assert_eq!(attribute(&deploy).get("ear"), None);
    }

    #[test]
    fn what_is_no_document_is_refused_without_a_look_at_it() {
        assert!(
            decode(&"A".repeat(MAX_DOCUMENT * 2))
                .unwrap_err()
                .contains("larger")
        );
        assert!(decode("§").unwrap_err().contains("base64"));
    }

    #[test]
    fn a_closed_challenge_says_why() {
        let mut item = waiting();
        assert!(closed(&item, NOW + Duration::from_secs(601)).contains("expired"));
        item.attestation = None;
        assert!(closed(&item, NOW).contains("no challenge"));
    }
}
