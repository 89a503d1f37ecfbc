//! The name of an enclave.

use std::fmt;
use std::ops::Deref;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The longest enclave name: one label of a host name (RFC 1035, section 2.3.4).
const MAX_NAME_BYTES: usize = 63;

/// A text is not an enclave name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "name `{0}` is not allowed: use 1 to {MAX_NAME_BYTES} lower-case letters, digits and hyphens, with a letter or digit at both ends"
)]
pub struct NameError(String);

/// Lower-case letters, digits and hyphens, 1 to 63, with a letter or digit at
/// both ends: what is also a host name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EnclaveName(String);

impl EnclaveName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for EnclaveName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let allowed = (1..=MAX_NAME_BYTES).contains(&text.len())
            && !text.starts_with('-')
            && !text.ends_with('-')
            && text
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        if allowed {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError(text.to_owned()))
        }
    }
}

impl TryFrom<String> for EnclaveName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<EnclaveName> for String {
    fn from(name: EnclaveName) -> Self {
        name.0
    }
}

impl Deref for EnclaveName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EnclaveName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The name of one of several workloads: as an enclave's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WorkloadName(EnclaveName);

impl FromStr for WorkloadName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        text.parse().map(Self)
    }
}

impl Deref for WorkloadName {
    type Target = str;

    fn deref(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Display for WorkloadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_host_name_labels() {
        for name in ["a", "0", "payments", "a-b--c", &"x".repeat(63)] {
            assert_eq!(name.parse::<EnclaveName>().unwrap().as_str(), name);
        }
        for name in [
            "",
            "-a",
            "a-",
            "A",
            "a_b",
            "a.b",
            "a/b",
            "\u{e9}",
            "a\n",
            &"x".repeat(64),
        ] {
            assert_eq!(
                name.parse::<EnclaveName>(),
                Err(NameError(name.into())),
                "{name}"
            );
        }
    }
}
