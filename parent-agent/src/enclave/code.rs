//! The code of an end, as the enclave gave it.

use std::fmt;

use link::EndCode;
use link::control::MAX_CODE;
use serde::{Deserialize, Serialize};

/// A code that is safe to show and to keep: lower-case letters, digits, `-` and
/// `.`, not empty, at most [`MAX_CODE`] bytes. It may be one that this release does
/// not know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Code(String);

impl Code {
    /// What an enclave gave as a code, without what no code has.
    pub fn clean(text: &str) -> Option<Self> {
        let is_plain = |letter: &char| {
            letter.is_ascii_lowercase() || letter.is_ascii_digit() || matches!(letter, '-' | '.')
        };
        let code: String = text.chars().filter(is_plain).take(MAX_CODE).collect();
        (!code.is_empty()).then_some(Self(code))
    }

    /// The code for metrics, whose labels must be few: `other` for those that this
    /// release does not know.
    pub fn label(&self) -> &'static str {
        EndCode::known(&self.0).map_or("other", EndCode::name)
    }

    /// Whether it is this one.
    pub fn is(&self, code: EndCode) -> bool {
        self.0 == code.name()
    }
}

impl From<EndCode> for Code {
    fn from(code: EndCode) -> Self {
        Self(code.name().to_owned())
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn codes_that_are_known_stay_and_are_labels() {
        for code in EndCode::ALL {
            let clean = Code::clean(code.name()).unwrap();
            assert_eq!(clean.to_string(), code.name());
            assert_eq!(clean.label(), code.name());
            assert!(clean.is(code));
        }
        assert_eq!(Code::clean("boot.later").unwrap().label(), "other");
        assert_eq!(Code::clean(""), None);
        assert_eq!(Code::clean("\u{1b}]\n"), None);
    }

    proptest! {
        #[test]
        fn codes_of_a_hostile_enclave_are_harmless(text in any::<String>()) {
            if let Some(code) = Code::clean(&text) {
                let shown = code.to_string();
                prop_assert!((1..=MAX_CODE).contains(&shown.len()));
                prop_assert!(shown.bytes().all(|byte| byte.is_ascii_graphic()));
                prop_assert!(code.label() == "other" || EndCode::known(code.label()).is_some());
            }
        }
    }
}
