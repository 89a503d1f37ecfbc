//! A family of images: those whose enclaves share one seed.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// Longest name of a family, in bytes.
pub const MAX_FAMILY: usize = 63;

/// The name of a family: 1 to [`MAX_FAMILY`] lower-case letters, digits and hyphens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Family(String);

/// A text is no name of a family.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{}` is not the name of a family: write 1 to {MAX_FAMILY} lower-case letters, digits and hyphens", .0.escape_debug())]
pub struct FamilyError(String);

impl Family {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Family {
    type Err = FamilyError;

    fn from_str(text: &str) -> Result<Self, FamilyError> {
        let is_allowed =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if (1..=MAX_FAMILY).contains(&text.len()) && text.bytes().all(is_allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(FamilyError(text.to_owned()))
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn family_names_are_short_and_plain() {
        for text in ["a", "payments-2", &"a".repeat(MAX_FAMILY)] {
            assert_eq!(text.parse::<Family>().unwrap().as_str(), text);
        }
        for text in [
            "",
            "A",
            "a b",
            "a/b",
            "ä",
            "a\n",
            &"a".repeat(MAX_FAMILY + 1),
        ] {
            assert!(text.parse::<Family>().is_err(), "{text:?}");
        }
    }
}
