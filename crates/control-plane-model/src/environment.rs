//! Variables of the environment.

use crate::failure::Failure;

/// A variable that a program cannot do without.
pub fn variable(name: &str) -> Result<String, Failure> {
    optional(name).ok_or_else(|| Failure::unset(name))
}

/// A variable that may be missing or empty.
pub fn optional(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
