//! The fields of a request, as clients write them, and what is wrong with them.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use super::Problem;
use crate::update::cut;

/// Reads fields under both of their names, and keeps what is wrong.
pub(super) struct Reader<'a> {
    pub(super) fields: Option<&'a Map<String, Value>>,
    pub(super) problems: Vec<Problem>,
}

impl<'a> Reader<'a> {
    pub(super) fn problem(&mut self, field: &'static str, value: &Value, rule: impl Into<String>) {
        let value = match value {
            Value::Null => String::new(),
            other => cut(&other.to_string(), 80),
        };
        self.problems.push(Problem {
            field,
            value,
            rule: rule.into(),
        });
    }

    /// The field's value. The first name is the one that problems call it by.
    pub(super) fn get(&mut self, names: &[&'static str]) -> Option<(&'static str, &'a Value)> {
        let fields = self.fields?;
        let mut found = names
            .iter()
            .filter_map(|name| fields.get(*name))
            .filter(|value| !value.is_null());
        let (name, first) = (*names.first()?, found.next()?);
        if let Some(other) = found.find(|other| *other != first) {
            let rule = format!("it is written twice, and once as {other}: write it once");
            self.problem(name, first, rule);
        }
        Some((name, first))
    }

    pub(super) fn text(&mut self, names: &[&'static str], most: usize) -> Option<&'a str> {
        let (name, value) = self.get(names)?;
        match value.as_str() {
            Some(text) if text.len() <= most && text.bytes().all(|b| b.is_ascii_graphic()) => {
                Some(text)
            }
            Some(_) => {
                let rule = format!("it must be at most {most} printable ASCII characters");
                self.problem(name, value, rule);
                None
            }
            None => {
                self.problem(name, value, "it must be a text");
                None
            }
        }
    }

    pub(super) fn number(
        &mut self,
        names: &[&'static str],
        range: RangeInclusive<u64>,
        unit: &str,
    ) -> Option<u64> {
        let (name, value) = self.get(names)?;
        match whole_number(value) {
            Some(number) if range.contains(&number) => Some(number),
            _ => {
                let rule = format!(
                    "it must be a whole number from {} to {}{unit}",
                    range.start(),
                    range.end()
                );
                self.problem(name, value, rule);
                None
            }
        }
    }

    pub(super) fn flag(&mut self, names: &[&'static str]) -> Option<bool> {
        let (name, value) = self.get(names)?;
        match (value, value.as_str()) {
            (Value::Bool(flag), _) => Some(*flag),
            (_, Some("true")) => Some(true),
            (_, Some("false")) => Some(false),
            _ => {
                self.problem(name, value, "it must be true or false");
                None
            }
        }
    }

    pub(super) fn list<T: PartialEq>(
        &mut self,
        names: &[&'static str],
        most: usize,
        rule: &str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Vec<T> {
        let Some((name, value)) = self.get(names) else {
            return Vec::new();
        };
        let Some(list) = value.as_array().filter(|list| list.len() <= most) else {
            self.problem(name, value, format!("it must be a list of at most {most}"));
            return Vec::new();
        };
        let mut entries = Vec::with_capacity(list.len());
        for entry in list {
            match read(entry) {
                Some(value) if entries.contains(&value) => {
                    self.problem(name, entry, "it is listed twice");
                }
                Some(value) => entries.push(value),
                None => self.problem(name, entry, rule),
            }
        }
        entries
    }
}

pub(super) fn whole_number(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}
