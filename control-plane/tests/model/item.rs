//! An item in memory, written as DynamoDB would.

use std::collections::BTreeMap;

use aws_sdk_dynamodb::types::AttributeValue;
use control_plane_model::attributes::{Attributes, text};
use control_plane_model::item::{Enclave, name};
use control_plane_model::status::Status;
use control_plane_model::update::{Condition, Update};

/// Attributes, all of them texts.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Item(pub(crate) BTreeMap<String, String>);

impl Item {
    pub(crate) fn attributes(&self) -> Attributes {
        self.0
            .iter()
            .map(|(name, value)| (name.clone(), text(value.as_str())))
            .collect()
    }

    pub(crate) fn enclave(&self) -> Enclave {
        Enclave::from_attributes(&self.attributes())
    }

    pub(crate) fn status(&self) -> Option<Status> {
        Status::parse(self.0.get(name::STATUS)?)
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Whether the conditions hold; then the write is made. Messages and times are
    /// left out: nothing is decided by them here.
    pub(crate) fn apply(&mut self, update: &Update) -> bool {
        if !update
            .conditions
            .iter()
            .all(|condition| self.holds(condition))
        {
            return false;
        }
        for (name, value) in &update.set {
            if !matches!(
                *name,
                name::ERROR_MESSAGE | name::ERROR_TYPE | name::UPDATED_AT
            ) {
                self.0.insert((*name).to_owned(), as_text(value));
            }
        }
        for (name, value) in &update.restore {
            self.0
                .entry((*name).to_owned())
                .or_insert_with(|| as_text(value));
        }
        for name in &update.remove {
            self.0.remove(*name);
        }
        true
    }

    fn holds(&self, condition: &Condition) -> bool {
        match condition {
            Condition::Exists => self.0.contains_key(name::ID),
            Condition::Status(statuses) => self
                .status()
                .is_some_and(|status| statuses.contains(&status)),
            Condition::Equal(path, value) => self.get(path) == Some(&as_text(value)),
            Condition::AbsentOrBefore(path, value) => {
                self.get(path).is_none_or(|held| held < value.as_str())
            }
            Condition::Absent(path) => self.get(path).is_none(),
        }
    }
}

fn as_text(value: &AttributeValue) -> String {
    value
        .as_s()
        .expect("the model's attributes are texts")
        .clone()
}
