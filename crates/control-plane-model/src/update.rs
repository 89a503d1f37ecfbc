//! Conditional writes to an item, as data.
//!
//! Decisions make them, the [store](crate::store) sends them, and the model that
//! tests explore applies the very same to an item in memory.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use time::OffsetDateTime;

use crate::attributes::text;
use crate::item::{name, timestamp};
use crate::sealing::STATUSES;
use crate::status::{Actor, Event, Status};

/// What must hold of the item as it is.
#[derive(Debug, Clone, PartialEq)]
pub enum Condition {
    /// There is an item.
    Exists,
    /// Its status is one of these.
    Status(Vec<Status>),
    /// The attribute at the path has the value.
    Equal(&'static str, AttributeValue),
    /// The attribute at the path is not there, or its text is before this one.
    AbsentOrBefore(&'static str, String),
    /// The attribute at the path is not there.
    Absent(&'static str),
}

/// A write to one item, made only where all of its conditions hold.
#[derive(Debug, Clone, PartialEq)]
pub struct Update {
    /// Whose item.
    pub id: String,
    /// What must hold.
    pub conditions: Vec<Condition>,
    /// What is set.
    pub set: Vec<(&'static str, AttributeValue)>,
    /// What is set only where it is absent.
    pub restore: Vec<(&'static str, AttributeValue)>,
    /// What is removed.
    pub remove: Vec<&'static str>,
}

impl Update {
    /// A write that leaves the status.
    pub fn amend(id: &str, now: OffsetDateTime) -> Self {
        Self::note(id).set(name::UPDATED_AT, text(timestamp(now)))
    }

    /// A write that does not count for the item's age: what it says of an enclave is no
    /// sign that anything works on it.
    pub fn note(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            conditions: vec![Condition::Exists],
            set: Vec::new(),
            restore: Vec::new(),
            remove: Vec::new(),
        }
    }

    /// The status that an event leads to, where the table permits the event. If the
    /// enclave does not run then, what is about its boot is removed, but for what a failed
    /// one waited for; a client's request leaves that to whoever takes it, since it may be
    /// undone.
    pub fn transition(id: &str, event: Event, now: OffsetDateTime) -> Self {
        let mut update = Self::amend(id, now)
            .when(Condition::Status(event.from()))
            .set(name::STATUS, text(event.to().name()));
        if event.actor() != Actor::Client && !STATUSES.contains(&event.to()) {
            let is_kept = |attribute| event.to() == Status::Failed && attribute == name::WAITING;
            let attributes = name::OF_A_BOOT.into_iter();
            update
                .remove
                .extend(attributes.filter(|attribute| !is_kept(*attribute)));
        }
        update
    }

    /// The old status, where a client wrote another that it may not.
    pub fn put_back(id: &str, written: Status, old: Status, now: OffsetDateTime) -> Self {
        Self::amend(id, now)
            .when(Condition::Status(vec![written]))
            .set(name::STATUS, text(old.name()))
    }

    /// Demands one more thing.
    #[must_use]
    pub fn when(mut self, condition: Condition) -> Self {
        self.conditions.push(condition);
        self
    }

    /// Narrows what the table permits to one status.
    #[must_use]
    pub fn only_from(mut self, status: Status) -> Self {
        for condition in &mut self.conditions {
            if let Condition::Status(statuses) = condition {
                statuses.retain(|permitted| *permitted == status);
            }
        }
        self
    }

    /// Sets an attribute.
    #[must_use]
    pub fn set(mut self, name: &'static str, value: AttributeValue) -> Self {
        self.set.push((name, value));
        self
    }

    /// Removes an attribute.
    #[must_use]
    pub fn remove(mut self, name: &'static str) -> Self {
        self.remove.push(name);
        self
    }

    /// Says what went wrong. Texts are cut to what a person reads.
    #[must_use]
    pub fn error(self, kind: &str, message: &str) -> Self {
        self.set(name::ERROR_TYPE, text(cut(kind, MAX_ERROR_TYPE)))
            .set(name::ERROR_MESSAGE, text(cut(message, MAX_ERROR_MESSAGE)))
    }

    /// The write in DynamoDB's expressions.
    pub fn expressions(&self) -> Expressions {
        let mut expressions = Expressions::default();
        let conditions: Vec<_> = self
            .conditions
            .iter()
            .map(|condition| expressions.condition(condition))
            .collect();
        expressions.condition = conditions.join(" AND ");
        let mut set = Vec::new();
        for (name, value) in &self.set {
            let (path, value) = (expressions.path(name), expressions.value(value.clone()));
            set.push(format!("{path} = {value}"));
        }
        for (name, value) in &self.restore {
            let (path, value) = (expressions.path(name), expressions.value(value.clone()));
            set.push(format!("{path} = if_not_exists({path}, {value})"));
        }
        let remove: Vec<_> = self
            .remove
            .iter()
            .map(|name| expressions.path(name))
            .collect();
        let clauses = [("SET", set), ("REMOVE", remove)]
            .into_iter()
            .filter(|(_, parts)| !parts.is_empty())
            .map(|(clause, parts)| format!("{clause} {}", parts.join(", ")));
        expressions.update = clauses.collect::<Vec<_>>().join(" ");
        expressions
    }
}

/// Characters of `error_message`.
const MAX_ERROR_MESSAGE: usize = 1024;
/// Characters of `error_type`.
const MAX_ERROR_TYPE: usize = 64;

/// The first characters of a text.
pub fn cut(text: &str, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        Some((end, _)) => format!("{}…", text.get(..end).expect("the end of a character")),
        None => text.to_owned(),
    }
}

/// An update in DynamoDB's language.
#[derive(Debug, Default)]
pub struct Expressions {
    /// `UpdateExpression`.
    pub update: String,
    /// `ConditionExpression`.
    pub condition: String,
    /// `ExpressionAttributeNames`.
    pub names: HashMap<String, String>,
    /// `ExpressionAttributeValues`.
    pub values: HashMap<String, AttributeValue>,
}

impl Expressions {
    fn path(&mut self, path: &str) -> String {
        let parts: Vec<_> = path
            .split('.')
            .map(|part| {
                let alias = format!("#{part}");
                self.names.insert(alias.clone(), part.to_owned());
                alias
            })
            .collect();
        parts.join(".")
    }

    fn value(&mut self, value: AttributeValue) -> String {
        let alias = format!(":v{}", self.values.len());
        self.values.insert(alias.clone(), value);
        alias
    }

    fn condition(&mut self, condition: &Condition) -> String {
        match condition {
            Condition::Exists => format!("attribute_exists({})", self.path(name::ID)),
            Condition::Status(statuses) => {
                let path = self.path(name::STATUS);
                let values: Vec<_> = statuses
                    .iter()
                    .map(|status| self.value(text(status.name())))
                    .collect();
                format!("{path} IN ({})", values.join(", "))
            }
            Condition::Equal(path, value) => {
                let (path, value) = (self.path(path), self.value(value.clone()));
                format!("{path} = {value}")
            }
            Condition::AbsentOrBefore(path, value) => {
                let (path, value) = (self.path(path), self.value(text(value.as_str())));
                format!("(attribute_not_exists({path}) OR {path} < {value})")
            }
            Condition::Absent(path) => format!("attribute_not_exists({})", self.path(path)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_speaks_dynamodbs_language() {
        let update = Update::transition("a", Event::Fail, OffsetDateTime::UNIX_EPOCH)
            .only_from(Status::Deploying)
            .when(Condition::Equal("attestation.state", text("waiting")))
            .remove(name::PROGRESS);
        let expressions = update.expressions();
        assert_eq!(
            expressions.condition,
            "attribute_exists(#id) AND #status IN (:v0) AND #attestation.#state = :v1"
        );
        assert_eq!(
            expressions.update,
            "SET #updated_at = :v2, #status = :v3 REMOVE #attestation_token, #sealing, #progress"
        );
        assert_eq!(expressions.values[":v0"], text("DEPLOYING"));
        assert_eq!(expressions.names.len(), 8);
    }

    #[test]
    fn update_to_a_status_without_a_running_enclave_removes_what_is_about_its_boot() {
        for (event, is_end) in [
            (Event::Fail, true),
            (Event::Reject, true),
            (Event::Abandon, true),
            (Event::MarkPaused, true),
            (Event::MarkGone, true),
            (Event::MarkDestroyed, true),
            (Event::MarkDeployed, false),
            (Event::MarkResumed, false),
            (Event::Destroy, false),
            (Event::Pause, false),
            (Event::Resume, false),
        ] {
            let update = Update::transition("a", event, OffsetDateTime::UNIX_EPOCH);
            for attribute in [name::ATTESTATION_TOKEN, name::SEALING] {
                let is_removed = update.remove.contains(&attribute);
                assert_eq!(is_removed, is_end, "{event:?} {attribute}");
            }
            // It may be why the enclave failed.
            let is_removed = update.remove.contains(&name::WAITING);
            let is_end = is_end && event.to() != Status::Failed;
            assert_eq!(is_removed, is_end, "{event:?}");
        }
    }

    #[test]
    fn update_that_is_a_note_leaves_the_items_age_and_may_only_remove() {
        let update = Update::note("a").remove(name::WAITING);
        let expressions = update.expressions();
        assert_eq!(expressions.update, "REMOVE #waiting");
        assert!(expressions.values.is_empty());
        let update = update.set(name::SEALING, text("x"));
        let expected = "SET #sealing = :v0 REMOVE #waiting";
        assert_eq!(update.expressions().update, expected);
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        assert_eq!(cut("äöü", 2), "äö…");
        assert_eq!(cut("äöü", 3), "äöü");
    }
}
