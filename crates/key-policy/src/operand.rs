//! What conditions compare with.

use std::net::IpAddr;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::context::Values;
use crate::error::{Problem, shown};
use crate::operator::{Comparison, Order};
use crate::pattern::{self, Template, Token};
use crate::truth::Truth;

/// Parts of an ARN that are compared one by one.
const ARN_PARTS: usize = 6;

/// A value of a condition, of the type that its operator compares.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Operand {
    Text(Template),
    Number(f64),
    Instant(OffsetDateTime),
    Bool(bool),
    Network(Network),
}

/// Addresses that begin with the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Network {
    address: IpAddr,
    bits: u8,
}

impl Operand {
    pub(crate) fn parse(
        comparison: Comparison,
        text: &str,
        variables: bool,
    ) -> Result<Self, Problem> {
        let (operand, kind) = match comparison {
            Comparison::Text
            | Comparison::TextIgnoringCase
            | Comparison::Pattern
            | Comparison::Arn => return Template::parse(text, variables).map(Self::Text),
            Comparison::Number(_) => (number(text).map(Self::Number), "number"),
            Comparison::Instant(_) => (
                instant(text).map(Self::Instant),
                "time, such as 2026-01-31T12:00:00Z",
            ),
            Comparison::Bool | Comparison::Null => {
                (boolean(text).map(Self::Bool), "truth value, true or false")
            }
            Comparison::Address => (
                Network::parse(text).map(Self::Network),
                "range of addresses, such as 192.0.2.0/24",
            ),
        };
        operand.ok_or_else(|| Problem::Value {
            value: shown(text),
            kind,
        })
    }

    /// Whether a value of the request matches; `None` is one that no policy names.
    pub(crate) fn matches(
        &self,
        comparison: Comparison,
        found: Option<&str>,
        values: &Values<'_>,
    ) -> Truth {
        match (self, found) {
            (Self::Text(template), Some(found)) => {
                template.compare(values, |tokens| text_matches(comparison, tokens, found))
            }
            (Self::Text(template), None) => {
                let pattern = matches!(comparison, Comparison::Pattern | Comparison::Arn);
                if template.variables().next().is_some() {
                    Truth::Maybe
                } else if pattern && template.matches_all() {
                    Truth::Yes
                } else if pattern && template.has_wildcards() {
                    Truth::Maybe
                } else {
                    Truth::No
                }
            }
            (_, None) => Truth::Maybe,
            (Self::Number(wanted), Some(found)) => {
                let found = number(found);
                found
                    .is_some_and(|found| comparison.is_in_order(&found, wanted))
                    .into()
            }
            (Self::Instant(wanted), Some(found)) => {
                let found = instant(found);
                found
                    .is_some_and(|found| comparison.is_in_order(&found, wanted))
                    .into()
            }
            (Self::Bool(wanted), Some(found)) => (boolean(found) == Some(*wanted)).into(),
            (Self::Network(network), Some(found)) => found
                .parse()
                .is_ok_and(|address| network.contains(address))
                .into(),
        }
    }
}

impl Comparison {
    fn is_in_order<T: PartialOrd>(self, found: &T, wanted: &T) -> bool {
        match self {
            Self::Number(order) | Self::Instant(order) => match order {
                Order::Equal => found == wanted,
                Order::Less => found < wanted,
                Order::LessOrEqual => found <= wanted,
                Order::Greater => found > wanted,
                Order::GreaterOrEqual => found >= wanted,
            },
            _ => false,
        }
    }
}

impl Network {
    fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let all = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            Some(bits) => bits.parse().ok().filter(|bits| *bits <= all)?,
            None => all,
        };
        Some(Self { address, bits })
    }

    fn contains(self, address: IpAddr) -> bool {
        let (own, other, all) = match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                (u128::from(own.to_bits()), u128::from(other.to_bits()), 32)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => (own.to_bits(), other.to_bits(), 128),
            _ => return false,
        };
        let rest = u32::from(all - self.bits);
        own.checked_shr(rest) == other.checked_shr(rest)
    }
}

fn text_matches(comparison: Comparison, tokens: &[Token], found: &str) -> bool {
    match comparison {
        Comparison::Text => pattern::equals(tokens, found, pattern::exactly),
        Comparison::TextIgnoringCase => pattern::equals(tokens, found, pattern::ignoring_case),
        Comparison::Pattern => pattern::matches(tokens, found, pattern::exactly),
        _ => arn_matches(tokens, found),
    }
}

/// The parts of an ARN are compared one by one, so that a wildcard does not go past a colon;
/// only the last part has any.
fn arn_matches(tokens: &[Token], found: &str) -> bool {
    if matches!(tokens, [Token::Any]) {
        return true;
    }
    let parts: Vec<&[Token]> = tokens
        .splitn(ARN_PARTS, |token| *token == Token::Character(':'))
        .collect();
    let found: Vec<&str> = found.splitn(ARN_PARTS, ':').collect();
    parts.len() == ARN_PARTS
        && found.len() == ARN_PARTS
        && parts
            .iter()
            .zip(found)
            .all(|(part, found)| pattern::matches(part, found, pattern::exactly))
}

fn number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

/// A day, a time with its zone, or seconds since 1970.
fn instant(text: &str) -> Option<OffsetDateTime> {
    if let Ok(seconds) = text.parse() {
        return OffsetDateTime::from_unix_timestamp(seconds).ok();
    }
    let parse = |text: &str| OffsetDateTime::parse(text, &Rfc3339).ok();
    parse(text).or_else(|| parse(&format!("{text}T00:00:00Z")))
}

fn boolean(text: &str) -> Option<bool> {
    if text.eq_ignore_ascii_case("true") {
        Some(true)
    } else if text.eq_ignore_ascii_case("false") {
        Some(false)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::Value;
    use crate::operator::Operator;

    fn holds(operator: &str, wanted: &str, found: &str) -> bool {
        let operator: Operator = operator.parse().unwrap();
        let operand = Operand::parse(operator.comparison, wanted, true).unwrap();
        operand.matches(operator.comparison, Some(found), &|_| Value::Absent) == Truth::Yes
    }

    #[test]
    fn operands_are_compared_as_their_operator_says() {
        for (operator, wanted, found, expected) in [
            ("StringEquals", "a", "a", true),
            ("StringEquals", "a", "A", false),
            ("StringEquals", "*", "a", false),
            ("StringEqualsIgnoreCase", "aB", "Ab", true),
            ("StringEqualsIgnoreCase", "a?", "ab", false),
            ("StringLike", "a*", "ab", true),
            ("StringLike", "a*", "Ab", false),
            ("NumericEquals", "5", "5.0", true),
            ("NumericLessThan", "5", "4", true),
            ("NumericLessThanEquals", "5", "5", true),
            ("NumericGreaterThan", "5", "5", false),
            ("NumericGreaterThanEquals", "5", "five", false),
            ("DateEquals", "2026-01-31", "2026-01-31T00:00:00Z", true),
            ("DateLessThan", "2026-01-31T00:00:00Z", "1769817599", true),
            (
                "DateLessThan",
                "2026-01-31T01:00:00+01:00",
                "1769817600",
                false,
            ),
            (
                "DateGreaterThanEquals",
                "1769817600",
                "2026-01-31T00:00:00Z",
                true,
            ),
            ("Bool", "true", "TRUE", true),
            ("Bool", "true", "1", false),
            ("IpAddress", "192.0.2.0/24", "192.0.2.255", true),
            ("IpAddress", "192.0.2.0/24", "192.0.3.0", false),
            ("IpAddress", "0.0.0.0/0", "1.2.3.4", true),
            ("IpAddress", "::/0", "2001:db8::1", true),
            ("IpAddress", "0.0.0.0/0", "2001:db8::1", false),
            ("IpAddress", "192.0.2.1", "192.0.2.1", true),
            (
                "ArnLike",
                "arn:aws:logs:*:1:log-group:*",
                "arn:aws:logs:x:1:log-group:a:b",
                true,
            ),
            (
                "ArnLike",
                "arn:aws:*:1:log-group:*",
                "arn:aws:logs:x:1:log-group:a",
                false,
            ),
            (
                "ArnEquals",
                "arn:aws:iam::1:role/*",
                "arn:aws:iam::1:role/a",
                true,
            ),
            ("ArnEquals", "*", "arn:aws:iam::1:role/a", true),
        ] {
            assert_eq!(
                holds(operator, wanted, found),
                expected,
                "{operator} {wanted} {found}"
            );
        }
    }

    #[test]
    fn operands_of_another_type_are_refused() {
        for (comparison, text) in [
            (Comparison::Number(Order::Equal), "1e999"),
            (Comparison::Number(Order::Equal), "one"),
            (Comparison::Number(Order::Equal), "NaN"),
            (Comparison::Instant(Order::Less), "tomorrow"),
            (Comparison::Bool, "yes"),
            (Comparison::Null, ""),
            (Comparison::Address, "192.0.2.0/33"),
            (Comparison::Address, "localhost"),
            (Comparison::Pattern, "${no:such}"),
        ] {
            assert!(Operand::parse(comparison, text, true).is_err(), "{text}");
        }
    }
}
