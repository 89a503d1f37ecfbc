//! Words that people write.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use serde::de::{Error, Visitor};

/// Reads one of a list's words. An error about it names the word's line, where
/// `#[serde(try_from)]` knows only the list's.
pub(crate) struct Word<T> {
    expected: &'static str,
    kind: PhantomData<T>,
}

impl<T> Word<T> {
    pub(crate) const fn new(expected: &'static str) -> Self {
        Self {
            expected,
            kind: PhantomData,
        }
    }
}

impl<T: FromStr<Err: fmt::Display>> Visitor<'_> for Word<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}
