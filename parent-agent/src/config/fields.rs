//! Reading an object key by key, so that every problem is found and not the
//! first alone.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

/// The fields of an object, and the problems found so far.
pub(super) struct Fields<'v, 'p> {
    object: &'v Map<String, Value>,
    place: String,
    known: BTreeSet<&'static str>,
    problems: &'p mut Vec<String>,
}

impl<'v, 'p> Fields<'v, 'p> {
    /// The fields of `value`, whose own place in the document comes before their
    /// names.
    pub(super) fn of(value: &'v Value, place: &str, problems: &'p mut Vec<String>) -> Option<Self> {
        let Some(object) = value.as_object() else {
            let place = place.trim_end_matches('.');
            let place = if place.is_empty() {
                "the document"
            } else {
                place
            };
            problems.push(format!("{place}: it is no table of keys and values"));
            return None;
        };
        Some(Self {
            object,
            place: place.to_owned(),
            known: BTreeSet::new(),
            problems,
        })
    }

    /// A field that may be absent, or null.
    pub(super) fn parsed<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&'v Value) -> Result<T, String>,
    ) -> Option<T> {
        self.known.insert(key);
        let value = self.object.get(key).filter(|value| !value.is_null())?;
        match parse(value) {
            Ok(parsed) => Some(parsed),
            Err(problem) => {
                self.problem(key, &problem);
                None
            }
        }
    }

    /// A field that must be there.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&'v Value) -> Result<T, String>,
    ) -> Option<T> {
        if self.object.get(key).is_none_or(Value::is_null) {
            self.known.insert(key);
            self.problem(key, "it is missing");
            return None;
        }
        self.parsed(key, parse)
    }

    /// A list that must be there.
    pub(super) fn required_list(&mut self, key: &'static str) -> Option<&'v [Value]> {
        self.required(key, |value| {
            let list = value.as_array().ok_or("it is not a list")?;
            Ok(list.as_slice())
        })
    }

    /// Names the fields that nobody has asked for.
    pub(super) fn end(self) {
        for key in self.object.keys() {
            if !self.known.contains(key.as_str()) {
                let known: Vec<_> = self.known.iter().copied().collect();
                self.problems.push(format!(
                    "{}{key}: there is no such key: use {}",
                    self.place,
                    known.join(", ")
                ));
            }
        }
    }

    fn problem(&mut self, key: &str, problem: &str) {
        self.problems
            .push(format!("{}{key}: {problem}", self.place));
    }
}
