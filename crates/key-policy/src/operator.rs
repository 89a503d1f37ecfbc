//! Condition operators (IAM, "Condition operators").

use std::str::FromStr;

use crate::error::{Problem, shown};

/// An operator with what stands before and behind its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Operator {
    pub(crate) set: Option<Set>,
    pub(crate) comparison: Comparison,
    pub(crate) negated: bool,
    pub(crate) if_exists: bool,
}

/// Which of several values have to match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Set {
    All,
    Any,
}

/// What an operator compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comparison {
    Text,
    TextIgnoringCase,
    Pattern,
    Number(Order),
    Instant(Order),
    Bool,
    Address,
    Arn,
    Null,
}

/// The order that a value of the request has to the policy's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// The operators, and whether they are negated.
const OPERATORS: [(&str, Comparison, bool); 26] = [
    ("StringEquals", Comparison::Text, false),
    ("StringNotEquals", Comparison::Text, true),
    (
        "StringEqualsIgnoreCase",
        Comparison::TextIgnoringCase,
        false,
    ),
    (
        "StringNotEqualsIgnoreCase",
        Comparison::TextIgnoringCase,
        true,
    ),
    ("StringLike", Comparison::Pattern, false),
    ("StringNotLike", Comparison::Pattern, true),
    ("NumericEquals", Comparison::Number(Order::Equal), false),
    ("NumericNotEquals", Comparison::Number(Order::Equal), true),
    ("NumericLessThan", Comparison::Number(Order::Less), false),
    (
        "NumericLessThanEquals",
        Comparison::Number(Order::LessOrEqual),
        false,
    ),
    (
        "NumericGreaterThan",
        Comparison::Number(Order::Greater),
        false,
    ),
    (
        "NumericGreaterThanEquals",
        Comparison::Number(Order::GreaterOrEqual),
        false,
    ),
    ("DateEquals", Comparison::Instant(Order::Equal), false),
    ("DateNotEquals", Comparison::Instant(Order::Equal), true),
    ("DateLessThan", Comparison::Instant(Order::Less), false),
    (
        "DateLessThanEquals",
        Comparison::Instant(Order::LessOrEqual),
        false,
    ),
    (
        "DateGreaterThan",
        Comparison::Instant(Order::Greater),
        false,
    ),
    (
        "DateGreaterThanEquals",
        Comparison::Instant(Order::GreaterOrEqual),
        false,
    ),
    ("Bool", Comparison::Bool, false),
    ("IpAddress", Comparison::Address, false),
    ("NotIpAddress", Comparison::Address, true),
    ("ArnEquals", Comparison::Arn, false),
    ("ArnLike", Comparison::Arn, false),
    ("ArnNotEquals", Comparison::Arn, true),
    ("ArnNotLike", Comparison::Arn, true),
    ("Null", Comparison::Null, false),
];

impl Operator {
    pub(crate) fn is_null(self) -> bool {
        self.comparison == Comparison::Null
    }
}

impl FromStr for Operator {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        let (set, name) = if let Some(name) = text.strip_prefix("ForAllValues:") {
            (Some(Set::All), name)
        } else if let Some(name) = text.strip_prefix("ForAnyValue:") {
            (Some(Set::Any), name)
        } else {
            (None, text)
        };
        let (name, if_exists) = match name.strip_suffix("IfExists") {
            Some(name) => (name, true),
            None => (name, false),
        };
        OPERATORS
            .iter()
            .find(|(known, ..)| *known == name)
            .map(|&(_, comparison, negated)| Self {
                set,
                comparison,
                negated,
                if_exists,
            })
            // `Null` asks for a key's presence itself.
            .filter(|operator| !operator.is_null() || (set.is_none() && !if_exists))
            .ok_or_else(|| Problem::Operator(shown(text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_are_those_that_aws_has() {
        for (name, comparison, _) in OPERATORS {
            assert!(name.parse::<Operator>().is_ok(), "{name}");
            let null = comparison == Comparison::Null;
            for text in [
                format!("{name}IfExists"),
                format!("ForAllValues:{name}"),
                format!("ForAnyValue:{name}IfExists"),
            ] {
                assert_eq!(text.parse::<Operator>().is_ok(), !null, "{text}");
            }
        }
        for text in [
            "",
            "IfExists",
            "stringEquals",
            "StringEqual",
            "NotBool",
            "BinaryEquals",
            "ForAllValues:",
            "ForAnyValues:StringLike",
            "StringEqualsIfExistsIfExists",
        ] {
            assert!(text.parse::<Operator>().is_err(), "{text}");
        }
    }
}
