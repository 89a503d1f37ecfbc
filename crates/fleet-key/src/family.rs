//! A family of images: those whose enclaves share one seed.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{Context, SHA384};
use measurements::Pcr;
use thiserror::Error;

/// The register that holds family and generation, where siblings hand the seed over.
pub const FAMILY_PCR: u8 = 31;
/// Longest name of a family, in bytes.
pub const MAX_FAMILY: usize = 63;

/// What is measured before family and generation: nothing else begins so.
const MEASURED: &[u8] = b"enclave key family, version 1\0";

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

    /// What the register of family and generation is extended with, once.
    pub fn measured(&self, generation: u64) -> Vec<u8> {
        let mut context = Context::new(&SHA384);
        context.update(MEASURED);
        context.update(&(self.0.len() as u64).to_be_bytes());
        context.update(self.0.as_bytes());
        context.update(&generation.to_be_bytes());
        context.finish().as_ref().to_vec()
    }

    /// The value of [`FAMILY_PCR`] in an enclave of this family and generation.
    pub fn register(&self, generation: u64) -> Pcr {
        Pcr::ZERO.extend(&self.measured(generation))
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

    /// printf 'enclave key family, version 1\0\0\0\0\0\0\0\0\x08payments\0\0\0\0\0\0\0\x03' |
    ///   sha384sum, and that after 48 zeros.
    #[test]
    fn family_registers_are_what_sha384sum_says() {
        let family: Family = "payments".parse().unwrap();
        assert_eq!(
            hex::encode(family.measured(3)),
            "a26dc3647429e1201b346f000e72146bd16424acb4c7961e92f4935a7cd43ed1d7324f0f66acb322a3d89fee7db2a565"
        );
        assert_eq!(
            family.register(3).to_string(),
            "42e663d809f46aafd43528aa5d831857845d75be6e05a88d09162bff232942be06619ce816d9f6807e283c15d944df33"
        );
    }

    #[test]
    fn family_registers_differ_with_name_and_generation() {
        let register =
            |name: &str, generation| name.parse::<Family>().unwrap().register(generation);
        let all = [
            register("a", 0),
            register("a", 1),
            register("a", 1 << 8),
            register("a1", 0),
            register("b", 0),
            Pcr::ZERO,
        ];
        for (index, one) in all.iter().enumerate() {
            assert_eq!(all.iter().position(|other| other == one), Some(index));
        }
    }
}
