//! Conditions of statements.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::context::{Value, Values};
use crate::error::{Place, PolicyError, Problem, shown};
use crate::json::Json;
use crate::key::ConditionKey;
use crate::operand::Operand;
use crate::operator::{Operator, Set};
use crate::truth::Truth;

/// A condition: what a key of the request is compared with.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Condition {
    pub(crate) operator: Operator,
    pub(crate) key: ConditionKey,
    operands: Vec<Operand>,
    /// As it is written.
    written: WrittenCondition,
}

/// A condition as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct WrittenCondition {
    /// The operator, `StringEquals`.
    pub operator: String,
    /// The key, `kms:ViaService`.
    pub key: String,
    /// The values.
    pub values: Vec<String>,
}

impl Condition {
    /// Reads the value of `Condition`.
    pub(crate) fn parse(
        json: &Json,
        variables: bool,
        place: &Place<'_>,
    ) -> Result<Vec<Self>, PolicyError> {
        let mut conditions: Vec<Self> = Vec::new();
        for (name, keys) in json.object(place)? {
            let place = Place::Element(place, name);
            let operator: Operator = name.parse().map_err(|problem| place.error(problem))?;
            let keys = keys.object(&place)?;
            if keys.is_empty() {
                return Err(place.error(Problem::Empty));
            }
            let mut known = BTreeSet::new();
            for (text, values) in keys {
                let place = Place::Element(&place, text);
                let key: ConditionKey = text.parse().map_err(|problem| place.error(problem))?;
                if !known.insert(key.clone()) {
                    return Err(place.error(Problem::ConditionKeyTwice(shown(text))));
                }
                let texts = values.values(&place)?;
                let operands = texts
                    .iter()
                    .map(|text| Operand::parse(operator.comparison, text, variables))
                    .collect::<Result<_, _>>()
                    .map_err(|problem| place.error(problem))?;
                conditions.push(Self {
                    operator,
                    key,
                    operands,
                    written: WrittenCondition {
                        operator: name.clone(),
                        key: text.clone(),
                        values: texts.into_iter().map(str::to_owned).collect(),
                    },
                });
            }
        }
        Ok(conditions)
    }

    /// Whether it holds. What AWS does not define may or may not: several values of a key
    /// that the operator takes for one, and `ForAnyValue:…IfExists` without the key.
    pub(crate) fn holds(&self, values: &Values<'_>) -> Truth {
        let Operator {
            set,
            negated,
            if_exists,
            ..
        } = self.operator;
        let value = match values(&self.key) {
            Value::Known([]) => Value::Absent,
            value => value,
        };
        if self.operator.is_null() {
            let absent = match value {
                Value::Absent => Truth::Yes,
                Value::Unknown => Truth::Maybe,
                Value::Other | Value::Known(_) => Truth::No,
            };
            let wanted = |operand: &Operand| match operand {
                Operand::Bool(true) => absent,
                _ => !absent,
            };
            return Truth::any(self.operands.iter().map(wanted));
        }
        let outcome = |matches: Truth| if negated { !matches } else { matches };
        let single = |found: Option<&str>| {
            let matches = self
                .operands
                .iter()
                .map(|operand| operand.matches(self.operator.comparison, found, values));
            outcome(Truth::any(matches))
        };
        match (value, set) {
            // One half of AWS's manual says yes, the other no.
            (Value::Absent, Some(Set::Any)) if if_exists => Truth::Maybe,
            (Value::Absent, _) if if_exists => Truth::Yes,
            (Value::Absent, None) => negated.into(),
            (Value::Absent, Some(set)) => (set == Set::All).into(),
            (Value::Other, _) => single(None),
            (Value::Known([one]), _) => single(Some(one)),
            (Value::Unknown, _) | (Value::Known(_), None) => Truth::Maybe,
            (Value::Known(all), Some(Set::All)) => {
                Truth::all(all.iter().map(|one| single(Some(one))))
            }
            (Value::Known(all), Some(Set::Any)) => {
                Truth::any(all.iter().map(|one| single(Some(one))))
            }
        }
    }

    /// The condition as it is written.
    pub(crate) fn written(&self) -> &WrittenCondition {
        &self.written
    }
}
