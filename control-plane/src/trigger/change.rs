//! A change of an item, and what is to be done about it.

use aws_sdk_dynamodb::types::AttributeValue;
use control_plane_model::attributes::{Attributes, from_stream, get_text, text};
use control_plane_model::execution::{Action, Input, sequence};
use control_plane_model::item::{Enclave, name};
use control_plane_model::status::{Actor, Event, Status, permits, refusal};
use control_plane_model::update::{Condition, Update};
use serde_json::Value;
use time::OffsetDateTime;

use super::{REFUSED, UNREADABLE};
use crate::workflows::Progress;

/// Attributes that are the control plane's. A client that writes its whole item
/// anew drops them.
const OWN: [&str; 10] = [
    name::EXECUTION_ARN,
    name::GENERATION,
    name::IMAGE,
    name::ATTESTATION,
    name::ATTESTATION_TOKEN,
    name::PROGRESS,
    name::RUNNER,
    name::OUTPUTS,
    name::REQUEST,
    name::WALLET_ADDRESS,
];

/// A change of an item, from one record of the stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The record's number; its order is that of its text.
    pub sequence: String,
    /// The item before, if there was one.
    pub old: Option<Attributes>,
    /// The item after; `None` if it was deleted.
    pub new: Option<Attributes>,
}

/// Whether a request may be worked on, from the item as it is now.
#[derive(Debug, Clone, PartialEq)]
pub enum Admission {
    /// It may, with the ticket that this write gives out.
    Ticket(Update),
    /// It hides an execution that goes on: this write puts back its status.
    PutBack(Update),
    /// The item's last execution has written its end, and not come to it.
    Later,
    /// The item has another status by now, or a later request; but an execution that
    /// goes on has lost it by this change, and gets it back by this write.
    Restore(Update),
    /// The item has another status by now, or a later request.
    Past,
}

/// A record that is no change of an item of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Poison {
    /// Whose item, if that can be read.
    pub id: Option<String>,
    /// Why.
    pub reason: String,
}

/// What to do about a change.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// Start this workflow, if it is [admitted](Change::admit).
    Start(Input),
    /// Put back what was there.
    Refuse {
        /// The write that does.
        put_back: Update,
        /// Why, for the client.
        message: &'static str,
        /// The execution that had the item, and what to start instead if it has ended
        /// by now: it gave the item another status, over which this one is legal.
        instead: Option<(String, Input)>,
    },
    /// Nothing, and why.
    Ignore(&'static str),
}

impl Change {
    /// Reads a record.
    pub fn parse(record: &Value) -> Result<Self, Poison> {
        let stream = record.get("dynamodb").unwrap_or(&Value::Null);
        let keys = stream.pointer("/Keys/id/S").and_then(Value::as_str);
        let poison = |reason: String| Poison {
            id: keys.map(str::to_owned),
            reason,
        };
        let image = |name: &str| match stream.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => from_stream(value)
                .map(Some)
                .map_err(|why| poison(format!("{name}: {why}"))),
        };
        let sequence_number = stream
            .get("SequenceNumber")
            .and_then(Value::as_str)
            .filter(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
            .ok_or_else(|| poison("SequenceNumber: it is not a number".to_owned()))?;
        let change = Self {
            sequence: sequence(sequence_number),
            old: image("OldImage")?,
            new: image("NewImage")?,
        };
        if let Some(new) = &change.new {
            if get_text(new, name::ID).is_none_or(|id| id.is_empty()) {
                return Err(poison("NewImage: it has no text `id`".to_owned()));
            }
            if get_text(new, name::STATUS).is_none() {
                return Err(poison("NewImage: it has no text `status`".to_owned()));
            }
        }
        Ok(change)
    }

    /// What to do about it: from the record alone, so that it is the same at each
    /// delivery.
    pub fn decide(&self, now: OffsetDateTime) -> Decision {
        let Some(attributes) = &self.new else {
            return Decision::Ignore("the item was deleted");
        };
        let new = Enclave::from_attributes(attributes);
        let Some(written) = new.status() else {
            return Decision::Ignore("its status is none of ours");
        };
        if new.is_foreign() {
            return Decision::Ignore("another provider's");
        }
        let old = self.old.as_ref().map(Enclave::from_attributes);
        let before = old.as_ref().and_then(Enclave::status);
        let action = match written {
            Status::PendingDeploy => Some(Action::Deploy),
            Status::PendingDestroy => Some(Action::Destroy),
            _ => None,
        };
        if before == Some(written) {
            return match action {
                // The same request written again: the first may be superseded by a
                // write between the two, which was refused.
                Some(action) if !is_ticket(old.as_ref(), &new) => {
                    Decision::Start(self.input(&new, action))
                }
                _ => Decision::Ignore("its status did not change"),
            };
        }
        let was_put_back = is_put_back(old.as_ref(), &new);
        let message = match before {
            Some(before) if !was_put_back => refusal(before, written),
            _ => None,
        };
        match (message, before, action) {
            (Some(message), Some(before), _) if is_request(written) => Decision::Refuse {
                put_back: self.put_back(&new, written, before, message, now),
                message,
                instead: old
                    .and_then(|old| old.execution_arn)
                    .filter(|_| matches!(before, Status::Deploying | Status::Destroying))
                    .zip(action.map(|action| self.input(&new, action))),
            },
            (_, _, Some(action)) => Decision::Start(self.input(&new, action)),
            _ => Decision::Ignore("nothing to do for the workflows"),
        }
    }

    fn input(&self, new: &Enclave, action: Action) -> Input {
        Input {
            enclave_id: new.id.clone(),
            action,
            sequence_number: self.sequence.clone(),
        }
    }

    /// The execution that an item names, or named before this change dropped it.
    pub fn owner(&self, item: &Enclave) -> Option<String> {
        let dropped = || Enclave::from_attributes(self.old.as_ref()?).execution_arn;
        item.execution_arn.clone().or_else(dropped)
    }

    /// Whether the request may be worked on. `owner` is how far its
    /// [owner](Self::owner) is.
    ///
    /// A client that writes twice in quick succession, first what it may not and then
    /// what over the first would be legal, must not start a second execution beside
    /// the one that goes on.
    pub fn admit(&self, item: &Enclave, owner: Option<Progress>, now: OffsetDateTime) -> Admission {
        let status = |image: &Option<Attributes>| {
            image
                .as_ref()
                .and_then(|image| Enclave::from_attributes(image).status())
        };
        let past = || {
            let is_lost = item.execution_arn.is_none() && owner == Some(Progress::Running);
            let update = self.restore(&item.id).filter(|_| is_lost);
            update.map_or(Admission::Past, Admission::Restore)
        };
        let (Some(written), before) = (status(&self.new), status(&self.old)) else {
            return Admission::Past;
        };
        let later = |request: &String| *request > self.sequence;
        if item.status() != Some(written) || item.request.as_ref().is_some_and(later) {
            return past();
        }
        // The record of the item's last write counts: that of an earlier one may come
        // when the item was claimed, and overwritten since.
        let last = self.new.as_ref().map(Enclave::from_attributes).as_ref() == Some(item);
        if !last && item.request.as_ref() != Some(&self.sequence) {
            return past();
        }
        let arn = item.execution_arn.as_deref();
        if owner == Some(Progress::Running) {
            let hidden = self.owner(item).as_deref().and_then(status_of_owner);
            return match hidden {
                Some(hidden) if before.is_some_and(|before| !before.is_at_rest()) => {
                    let message = refusal(hidden, written).unwrap_or("refused: it is in motion");
                    let mut put_back = Update::put_back(&item.id, written, hidden, now)
                        .when(owned_by(arn))
                        .error(REFUSED, message);
                    put_back.restore = self.dropped();
                    Admission::PutBack(put_back)
                }
                _ => Admission::Later,
            };
        }
        Admission::Ticket(
            Update::amend(&item.id, now)
                .when(Condition::Status(vec![written]))
                .when(owned_by(arn))
                .when(Condition::AbsentOrBefore(
                    name::REQUEST,
                    // This ticket again is as good: the first delivery may have
                    // ended between the ticket and the start.
                    format!("{}+", self.sequence),
                ))
                .set(name::REQUEST, text(self.sequence.as_str()))
                .remove(name::NOTICED_AT),
        )
    }

    /// The write that only restores what this change dropped, where its status has been
    /// overwritten already; `None` if it dropped nothing.
    pub fn restore(&self, id: &str) -> Option<Update> {
        let dropped = self.dropped();
        (!dropped.is_empty()).then(|| Update {
            id: id.to_owned(),
            conditions: vec![Condition::Exists, self.is_new()],
            set: vec![(name::REFUSED, text(self.sequence.as_str()))],
            restore: dropped,
            remove: Vec::new(),
        })
    }

    /// That nothing of a later change was put back.
    fn is_new(&self) -> Condition {
        Condition::AbsentOrBefore(name::REFUSED, self.sequence.clone())
    }

    /// What is the control plane's, and this change dropped.
    fn dropped(&self) -> Vec<(&'static str, AttributeValue)> {
        let (Some(old), Some(new)) = (&self.old, &self.new) else {
            return Vec::new();
        };
        let is_dropped = |name: &&str| !new.contains_key(*name);
        let value = |name| old.get(name).map(|value| (name, value.clone()));
        OWN.into_iter()
            .filter(is_dropped)
            .filter_map(value)
            .collect()
    }

    fn put_back(
        &self,
        new: &Enclave,
        written: Status,
        before: Status,
        message: &str,
        now: OffsetDateTime,
    ) -> Update {
        let mut update = Update::put_back(&new.id, written, before, now)
            .when(self.is_new())
            .set(name::REFUSED, text(self.sequence.as_str()))
            .error(REFUSED, message);
        update.restore = self.dropped();
        let (Some(old), Some(new)) = (&self.old, &self.new) else {
            return update;
        };
        let request = name::PROVIDER_CONFIG;
        if let Some(value) = old.get(request)
            && new.get(request) != Some(value)
        {
            update = update.set(request, value.clone());
        }
        update
    }
}

impl Poison {
    /// The write that says so on the item.
    pub fn reject(&self, now: OffsetDateTime) -> Option<Update> {
        let id = self.id.as_deref().filter(|id| !id.is_empty())?;
        let message = format!("the request cannot be read: {}", self.reason);
        Some(Update::transition(id, Event::Reject, now).error(UNREADABLE, &message))
    }
}

/// That the item's owner is still this one, or nobody.
fn owned_by(arn: Option<&str>) -> Condition {
    match arn {
        Some(arn) => Condition::Equal(name::EXECUTION_ARN, text(arn)),
        None => Condition::Absent(name::EXECUTION_ARN),
    }
}

/// The status that an execution holds its item in, from its name.
fn status_of_owner(arn: &str) -> Option<Status> {
    let name = arn.rsplit(':').next()?;
    match name.split('-').next()? {
        "deploy" => Some(Status::Deploying),
        "destroy" => Some(Status::Destroying),
        "resume" => Some(Status::Resuming),
        _ => None,
    }
}

/// Whether the trigger made this write to put something back.
fn is_put_back(old: Option<&Enclave>, new: &Enclave) -> bool {
    new.refused.is_some() && new.refused.as_ref() != old.and_then(|old| old.refused.as_ref())
}

/// Whether the trigger made this write to [admit](Change::admit) a request.
fn is_ticket(old: Option<&Enclave>, new: &Enclave) -> bool {
    new.request.is_some()
        && new.request.as_ref() != old.and_then(|old| old.request.as_ref())
        && !is_put_back(old, new)
}

/// Whether it is a status that clients write.
fn is_request(status: Status) -> bool {
    Event::ALL
        .iter()
        .any(|event| event.actor() == Actor::Client && event.to() == status)
}

/// Whether the trigger may write `to` over `from`: its refusals undo what the table
/// does not permit.
pub fn undoes(from: Status, to: Status) -> bool {
    is_request(from) && !permits(Some(to), Actor::Client, from)
}

#[cfg(test)]
mod tests;
