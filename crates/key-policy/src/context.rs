//! What is known of a request.

use crate::key::ConditionKey;

/// What is known of a condition key's value.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Value<'a> {
    /// The request has no such key.
    Absent,
    /// Whether it has one, and which, is not known.
    Unknown,
    /// It has one that no policy names.
    Other,
    /// It has these.
    Known(&'a [String]),
}

/// Where values are looked up.
pub(crate) type Values<'a> = dyn Fn(&ConditionKey) -> Value<'a> + 'a;
