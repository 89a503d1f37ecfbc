//! A value of a policy that may be one or several.

use std::fmt::{self, Display};
use std::marker::PhantomData;
use std::str::FromStr;

use measurements::{InstanceId, Pcr, RoleArn};
use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};

/// What a text may stand for.
pub(crate) trait Word: FromStr<Err: Display> + PartialEq {
    /// What the text is, for people.
    const NAME: &'static str;
}

impl Word for Pcr {
    const NAME: &'static str = "a register's value in hexadecimal";
}

impl Word for RoleArn {
    const NAME: &'static str = "a role's ARN";
}

impl Word for InstanceId {
    const NAME: &'static str = "an instance's id";
}

/// A text, or a list of different ones.
#[derive(Debug)]
pub(crate) struct OneOrMany<T>(pub(crate) Vec<T>);

impl<'de, T: Word> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Words(PhantomData))
    }
}

struct Words<T>(PhantomData<T>);

impl<'de, T: Word> Visitor<'de> for Words<T> {
    type Value = OneOrMany<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, or a list of them", T::NAME)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<OneOrMany<T>, E> {
        text.parse()
            .map(|word| OneOrMany(vec![word]))
            .map_err(E::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut texts: A) -> Result<OneOrMany<T>, A::Error> {
        let mut words = Vec::new();
        while let Some(text) = texts.next_element::<String>()? {
            let word = text.parse().map_err(A::Error::custom)?;
            // Where one is there twice, another may be missing.
            if words.contains(&word) {
                return Err(A::Error::custom(
                    "the list has a value twice: remove one of the two",
                ));
            }
            words.push(word);
        }
        Ok(OneOrMany(words))
    }
}
