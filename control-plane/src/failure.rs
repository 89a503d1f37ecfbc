//! The function that every failed execution calls: it marks the item, and says what
//! went wrong in words for people.

use std::time::Duration;

use control_plane_model::Failure;
use control_plane_model::attributes::text;
use control_plane_model::caught::{Caught, Explanation, MAX_MESSAGE};
use control_plane_model::execution::{Action, Input, Reason, execution_arn};
use control_plane_model::item::{AttestationState, Enclave, name};
use control_plane_model::status::{Event, Status};
use control_plane_model::store::{Outcome, Store};
use control_plane_model::update::{Condition, Update, cut};
use serde::Deserialize;
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::time::sleep;
use tracing::{error, info, warn};

/// How often, and how long apart, an item is looked at again while a client's
/// illegal write hides its status from its owner.
const ATTEMPTS: u32 = 10;
const PAUSE: Duration = Duration::from_secs(1);
/// Characters of an SNS subject.
const MAX_SUBJECT: usize = 90;

/// What a workflow says of its failure.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Report {
    /// Whose item.
    pub enclave_id: String,
    /// `deploy`, `destroy` or `attest`.
    pub action: String,
    /// The execution that failed.
    pub execution_arn: String,
    /// What failed.
    pub error: Caught,
    /// What failed while the rest was being removed.
    #[serde(default)]
    pub rollback: Option<Caught>,
    /// Why an attestation was made.
    #[serde(default)]
    pub reason: Option<Reason>,
}

impl Report {
    /// What went wrong, in words.
    pub fn explain(&self) -> Explanation {
        let mut explanation = self.error.explain();
        if let Some(rollback) = &self.rollback {
            let why = rollback.explain().message;
            explanation.message = format!(
                "{}; what was created could not be removed: {}; request PENDING_DESTROY to try again",
                explanation.message.trim_end_matches('.'),
                why.trim_end_matches('.')
            );
        }
        explanation
    }

    /// The write that marks the item, and no other: the execution owns it, or holds
    /// the ticket of a request that it did not come to claim. `None` if neither.
    pub fn mark(&self, item: &Enclave, now: OffsetDateTime) -> Option<Update> {
        let Explanation { kind, message } = self.explain();
        let status = item.status()?;
        if self.reason == Some(Reason::Schedule) {
            return self.mark_attestation(item, &message, now);
        }
        let owner = item.execution_arn.as_deref() == Some(self.execution_arn.as_str());
        let condition = match status {
            Status::Deploying | Status::Destroying | Status::Resuming if owner => {
                Condition::Equal(name::EXECUTION_ARN, text(self.execution_arn.as_str()))
            }
            Status::PendingDeploy | Status::PendingDestroy => {
                let request = self.ticket(item)?;
                Condition::Equal(name::REQUEST, text(request))
            }
            _ => return None,
        };
        let mut update = Update::transition(&self.enclave_id, Event::Fail, now)
            .only_from(status)
            .when(condition)
            .error(&kind, &message)
            .remove(name::PROGRESS)
            .remove(name::RUNNER);
        if let Some(attestation) = &item.attestation
            && attestation.state == AttestationState::Waiting
        {
            let mut failed = attestation.clone();
            failed.state = AttestationState::Failed;
            failed.message = Some(cut(&message, MAX_MESSAGE));
            update = update.set(name::ATTESTATION, failed.to_attribute());
        }
        Some(update)
    }

    /// The item's ticket, if this execution is the one that holds it.
    fn ticket<'a>(&self, item: &'a Enclave) -> Option<&'a str> {
        let action = match self.action.as_str() {
            "deploy" => Action::Deploy,
            "destroy" => Action::Destroy,
            _ => return None,
        };
        let request = item.request.as_deref()?;
        let input = Input {
            enclave_id: self.enclave_id.clone(),
            action,
            sequence_number: request.to_owned(),
        };
        let (machine, _) = self.execution_arn.rsplit_once(':')?;
        (execution_arn(machine, &input.execution_name()) == self.execution_arn).then_some(request)
    }

    /// A scheduled attestation leaves the enclave deployed: it is marked, and people
    /// are told.
    fn mark_attestation(
        &self,
        item: &Enclave,
        message: &str,
        now: OffsetDateTime,
    ) -> Option<Update> {
        let mut attestation = item.attestation.clone()?;
        if attestation.execution_arn != self.execution_arn {
            return None;
        }
        attestation.state = AttestationState::Failed;
        attestation.message = Some(cut(message, MAX_MESSAGE));
        Some(
            Update::amend(&self.enclave_id, now)
                .when(Condition::Status(vec![Status::Deployed]))
                .when(Condition::Equal(
                    "attestation.execution_arn",
                    text(self.execution_arn.as_str()),
                ))
                .set(name::ATTESTATION, attestation.to_attribute())
                .remove(name::ATTESTATION_TOKEN),
        )
    }

    /// Whether the item may come back under this execution: a client's write hides
    /// the status, and the trigger has not put it back.
    fn is_hidden(&self, item: &Enclave) -> bool {
        item.execution_arn.as_deref() == Some(self.execution_arn.as_str())
            && matches!(
                item.status(),
                Some(
                    Status::PendingDeploy
                        | Status::PendingDestroy
                        | Status::Pausing
                        | Status::Resuming
                )
            )
    }
}

/// Handles an invocation: marks the item, and tells the topic.
pub async fn handle(
    store: &Store,
    topic: Option<(&aws_sdk_sns::Client, &str)>,
    event: Value,
) -> Result<Value, Failure> {
    let report: Report = serde_json::from_value(event).map_err(Failure::input)?;
    let explanation = report.explain();
    error!(
        enclave_id = report.enclave_id,
        action = report.action,
        execution_arn = report.execution_arn,
        error_type = explanation.kind,
        error = explanation.message,
        "an execution failed"
    );
    let marked = mark(store, &report).await?;
    let notified = match topic {
        Some((client, arn)) if marked => notify(client, arn, &report, &explanation).await,
        _ => false,
    };
    Ok(json!({
        "marked": marked,
        "notified": notified,
        "error_type": explanation.kind,
        "error_message": explanation.message,
    }))
}

async fn mark(store: &Store, report: &Report) -> Result<bool, Failure> {
    for attempt in 1..=ATTEMPTS {
        let Some(item) = store.get(&report.enclave_id).await? else {
            info!(enclave_id = report.enclave_id, "the item was deleted");
            return Ok(false);
        };
        match report.mark(&item, OffsetDateTime::now_utc()) {
            Some(update) => {
                if store.apply(&update).await? == Outcome::Done {
                    return Ok(true);
                }
            }
            None if report.is_hidden(&item) && attempt < ATTEMPTS => sleep(PAUSE).await,
            None => {
                info!(
                    enclave_id = report.enclave_id,
                    status = item.status_text,
                    "the item is not this execution's"
                );
                return Ok(false);
            }
        }
    }
    warn!(
        enclave_id = report.enclave_id,
        "the item changes too often to be marked"
    );
    Ok(false)
}

/// Tells the topic. The item says the same: where the topic fails, that is enough.
async fn notify(
    client: &aws_sdk_sns::Client,
    topic: &str,
    report: &Report,
    explanation: &Explanation,
) -> bool {
    let what = match report.action.as_str() {
        "destroy" => "was not destroyed",
        "attest" => "did not attest",
        _ => "was not deployed",
    };
    let subject = cut(
        &format!("Enclave {} {what}", report.enclave_id),
        MAX_SUBJECT,
    );
    let message = format!(
        "Enclave {} {what}.\n\n{}\n\nError: {}\nExecution: {}\n",
        report.enclave_id, explanation.message, explanation.kind, report.execution_arn
    );
    let result = client
        .publish()
        .topic_arn(topic)
        // SNS takes printable ASCII in subjects.
        .subject(subject.replace(
            |character: char| !character.is_ascii_graphic() && character != ' ',
            "?",
        ))
        .message(message)
        .send()
        .await;
    if let Err(error) = result {
        let failure = Failure::of_call("Publish", topic, &error);
        error!(enclave_id = report.enclave_id, error = %failure, "nobody was told");
        return false;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use control_plane_model::execution::sequence;

    const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

    fn caught(error: &str, cause: &str) -> Caught {
        Caught {
            error: error.to_owned(),
            cause: cause.to_owned(),
        }
    }

    fn report() -> Report {
        let input = Input {
            enclave_id: "e-1".to_owned(),
            action: Action::Deploy,
            sequence_number: sequence("7"),
        };
        Report {
            enclave_id: "e-1".to_owned(),
            action: "deploy".to_owned(),
            execution_arn: format!(
                "arn:aws:states:us-west-2:1:execution:deployment:{}",
                input.execution_name()
            ),
            error: caught("TerraformFailed", "no capacity"),
            rollback: None,
            reason: None,
        }
    }

    fn item(status: Status) -> Enclave {
        Enclave {
            id: "e-1".to_owned(),
            status_text: Some(status.name().to_owned()),
            ..Enclave::default()
        }
    }

    #[test]
    fn what_could_not_be_removed_is_said_too() {
        let mut report = report();
        report.rollback = Some(caught("TerraformFailed", "locked"));
        assert_eq!(
            report.explain().message,
            "no capacity; what was created could not be removed: locked; request PENDING_DESTROY to try again"
        );
    }

    #[test]
    fn only_the_owner_marks_a_claimed_item() {
        let mut item = item(Status::Deploying);
        assert_eq!(report().mark(&item, NOW), None);
        item.execution_arn = Some(report().execution_arn);
        let update = report().mark(&item, NOW).unwrap();
        assert!(update.set.contains(&(name::STATUS, text("FAILED"))));
        assert!(
            update
                .set
                .contains(&(name::ERROR_MESSAGE, text("no capacity")))
        );
        for status in [
            Status::Deployed,
            Status::Failed,
            Status::Destroyed,
            Status::Paused,
        ] {
            item.status_text = Some(status.name().to_owned());
            assert_eq!(report().mark(&item, NOW), None, "{status}");
        }
    }

    #[test]
    fn before_the_claim_only_the_ticket_counts() {
        let mut item = item(Status::PendingDeploy);
        assert_eq!(report().mark(&item, NOW), None);
        item.request = Some(sequence("8"));
        assert_eq!(report().mark(&item, NOW), None);
        item.request = Some(sequence("7"));
        assert!(report().mark(&item, NOW).is_some());
    }

    #[test]
    fn an_illegal_write_over_a_claimed_item_is_waited_for() {
        let mut item = item(Status::PendingDestroy);
        item.execution_arn = Some(report().execution_arn);
        assert_eq!(report().mark(&item, NOW), None);
        assert!(report().is_hidden(&item));
    }

    #[test]
    fn a_scheduled_attestation_leaves_the_enclave_deployed() {
        let mut report = report();
        report.reason = Some(Reason::Schedule);
        let mut item = item(Status::Deployed);
        assert_eq!(report.mark(&item, NOW), None);
        item.attestation = Some(control_plane_model::item::Attestation {
            state: AttestationState::Waiting,
            reason: Reason::Schedule,
            nonce: String::new(),
            expires_at: String::new(),
            execution_arn: report.execution_arn.clone(),
            verified_at: None,
            document_sha256: None,
            self_check: None,
            ear: None,
            message: None,
        });
        let update = report.mark(&item, NOW).unwrap();
        assert!(update.set.iter().all(|(name, _)| *name != name::STATUS));
        assert!(
            update
                .set
                .iter()
                .any(|(name, _)| *name == name::ATTESTATION)
        );
    }
}
