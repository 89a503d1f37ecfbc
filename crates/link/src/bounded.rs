//! Byte strings and texts whose greatest length is part of their type.

use std::fmt;
use std::ops::Deref;

use minicbor::decode::{Decoder, Error as DecodeError};
use minicbor::encode::{Encoder, Error as EncodeError, Write};
use minicbor::{Decode, Encode};

/// Longest name of a workload, in bytes.
pub const MAX_NAME: usize = 63;

/// A byte string of at most `MAX` bytes.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Bytes<const MAX: usize>(Vec<u8>);

impl<const MAX: usize> Bytes<MAX> {
    /// The bytes, unless there are more than `MAX` of them.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Option<Self> {
        let bytes = bytes.into();
        (bytes.len() <= MAX).then_some(Self(bytes))
    }

    /// The bytes alone.
    pub fn into_vec(self) -> Vec<u8> {
        self.0
    }
}

impl<const MAX: usize> Deref for Bytes<MAX> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl<const MAX: usize> fmt::Debug for Bytes<MAX> {
    /// The length only: contents may be secret, and are rarely readable.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bytes({} of at most {MAX})", self.0.len())
    }
}

impl<C, const MAX: usize> Encode<C> for Bytes<MAX> {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), EncodeError<W::Error>> {
        e.bytes(&self.0)?.ok()
    }
}

impl<'b, C, const MAX: usize> Decode<'b, C> for Bytes<MAX> {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, DecodeError> {
        bytes::<MAX, _>(d, &mut ()).map(|bytes| Self(bytes.to_vec()))
    }
}

/// Decodes a byte string of at most `MAX` bytes without copying it.
pub(crate) fn bytes<'b, const MAX: usize, C>(
    d: &mut Decoder<'b>,
    _: &mut C,
) -> Result<&'b [u8], DecodeError> {
    let position = d.position();
    let bytes = d.bytes()?;
    if bytes.len() > MAX {
        return Err(DecodeError::message(format!(
            "{} bytes where at most {MAX} are allowed",
            bytes.len()
        ))
        .at(position));
    }
    Ok(bytes)
}

/// Decodes the name of a workload, if there is one, without copying it: what else could be
/// written into logs is refused.
pub(crate) fn name<'b, C>(
    d: &mut Decoder<'b>,
    context: &mut C,
) -> Result<Option<&'b str>, DecodeError> {
    let position = d.position();
    let name = Option::<&str>::decode(d, context)?;
    let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_name = |name: &str| (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(is_allowed);
    if name.is_some_and(|name| !is_name(name)) {
        return Err(DecodeError::message("not the name of a workload").at(position));
    }
    Ok(name)
}

/// Decodes an array of at most `MAX` items, whatever length it claims.
pub(crate) fn array<'b, const MAX: usize, C, T: Decode<'b, C>>(
    d: &mut Decoder<'b>,
    context: &mut C,
) -> Result<Vec<T>, DecodeError> {
    let position = d.position();
    let mut items = Vec::new();
    for item in d.array_iter_with(context)? {
        let item = item?;
        if items.len() == MAX {
            return Err(DecodeError::message(format!(
                "more than the {MAX} items that are allowed"
            ))
            .at(position));
        }
        items.push(item);
    }
    Ok(items)
}

/// A text of at most `MAX` bytes, meant for people: a longer one is cut.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Text<const MAX: usize>(String);

impl<const MAX: usize> Text<MAX> {
    /// The text, cut at the last character that fits.
    pub fn new(text: impl Into<String>) -> Self {
        let mut text = text.into();
        text.truncate(text.floor_char_boundary(MAX));
        Self(text)
    }
}

impl<const MAX: usize> Deref for Text<MAX> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<const MAX: usize> fmt::Display for Text<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<C, const MAX: usize> Encode<C> for Text<MAX> {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), EncodeError<W::Error>> {
        e.str(&self.0)?.ok()
    }
}

impl<'b, C, const MAX: usize> Decode<'b, C> for Text<MAX> {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, DecodeError> {
        let position = d.position();
        let text = d.str()?;
        if text.len() > MAX {
            return Err(DecodeError::message(format!(
                "a text of {} bytes where at most {MAX} are allowed",
                text.len()
            ))
            .at(position));
        }
        Ok(Self(text.to_owned()))
    }
}
