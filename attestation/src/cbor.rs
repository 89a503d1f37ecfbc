//! A strict, zero-copy reader of the CBOR that documents use (RFC 8949):
//! shortest forms only, definite lengths for everything but maps, no floats, no
//! tags but the one that is asked for.

use crate::rule::{Rejection, Rule};

/// Major types (RFC 8949, section 3.1).
const UNSIGNED: u8 = 0;
const NEGATIVE: u8 = 1;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
const TAG: u8 = 6;

const NULL: u8 = 0xf6;
const INDEFINITE_MAP: u8 = 0xbf;
const BREAK: u8 = 0xff;

/// Deepest nesting of an item that is skipped.
const MAX_DEPTH: usize = 8;

pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
}

/// How many entries a map has left.
pub(crate) enum MapLength {
    Definite(u64),
    Indefinite,
}

impl<'a> Cursor<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) const fn left(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn unsigned(&mut self) -> Result<u64, Rejection> {
        self.head(UNSIGNED, "an unsigned integer")
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], Rejection> {
        let length = self.head(BYTES, "a byte string")?;
        self.take(length)
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, Rejection> {
        let length = self.head(TEXT, "a text")?;
        std::str::from_utf8(self.take(length)?).map_err(|_| broken("a text is not UTF-8"))
    }

    pub(crate) fn array(&mut self) -> Result<u64, Rejection> {
        self.head(ARRAY, "an array")
    }

    /// The start of a map. Real documents have maps of both kinds.
    pub(crate) fn map(&mut self) -> Result<MapLength, Rejection> {
        if self.skip(INDEFINITE_MAP) {
            return Ok(MapLength::Indefinite);
        }
        self.definite_map().map(MapLength::Definite)
    }

    /// Whether another entry of the map follows.
    pub(crate) fn next_entry(&mut self, length: &mut MapLength) -> bool {
        match length {
            MapLength::Definite(0) => false,
            MapLength::Definite(left) => {
                *left -= 1;
                true
            }
            MapLength::Indefinite => !self.skip(BREAK),
        }
    }

    /// A map of definite length.
    pub(crate) fn definite_map(&mut self) -> Result<u64, Rejection> {
        self.head(MAP, "a map")
    }

    pub(crate) fn skip_null(&mut self) -> bool {
        self.skip(NULL)
    }

    /// Skips a tag of this number, if there is a tag at all.
    pub(crate) fn skip_tag(&mut self, number: u64) -> Result<(), Rejection> {
        match self.rest.first() {
            Some(first) if first >> 5 == TAG => match self.head(TAG, "a tag")? {
                found if found == number => Ok(()),
                found => Err(broken(format!("tag {found} where only {number} may be"))),
            },
            _ => Ok(()),
        }
    }

    /// Skips an item of any type. It has the forms that are read elsewhere; tags, floats
    /// and simple values may be in it too.
    pub(crate) fn skip_item(&mut self) -> Result<(), Rejection> {
        self.skip_nested(0)
    }

    fn skip_nested(&mut self, depth: usize) -> Result<(), Rejection> {
        if depth > MAX_DEPTH {
            return Err(broken("an item is nested too deeply"));
        }
        let Some(&first) = self.rest.first() else {
            return Err(broken("an item is missing at the end"));
        };
        match first >> 5 {
            UNSIGNED => self.unsigned().map(drop),
            NEGATIVE => self.head(NEGATIVE, "a negative integer").map(drop),
            BYTES => self.bytes().map(drop),
            TEXT => self.text().map(drop),
            ARRAY => {
                // An item has a byte at least, so this ends with the bytes.
                for _ in 0..self.array()? {
                    self.skip_nested(depth + 1)?;
                }
                Ok(())
            }
            MAP => {
                let mut entries = self.map()?;
                while self.next_entry(&mut entries) {
                    self.skip_nested(depth + 1)?;
                    self.skip_nested(depth + 1)?;
                }
                Ok(())
            }
            TAG => {
                self.head(TAG, "a tag")?;
                self.skip_nested(depth + 1)
            }
            _ => self.skip_simple(first & 0x1f),
        }
    }

    /// Skips a float or a simple value (RFC 8949, section 3.3).
    fn skip_simple(&mut self, information: u8) -> Result<(), Rejection> {
        let (length, more) = match information {
            0..24 => (1, false),
            24 => (2, true),
            25 => (3, false),
            26 => (5, false),
            27 => (9, false),
            _ => return Err(broken("a simple value of a reserved kind")),
        };
        // The first 32 have a shorter form.
        if more && self.rest.get(1).is_some_and(|value| *value < 32) {
            return Err(broken("a simple value is not written in its shortest form"));
        }
        self.take(length).map(drop)
    }

    fn skip(&mut self, byte: u8) -> bool {
        match self.rest.split_first() {
            Some((first, rest)) if *first == byte => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], Rejection> {
        let split = usize::try_from(length)
            .ok()
            .and_then(|length| self.rest.split_at_checked(length));
        let (taken, rest) = split.ok_or_else(|| {
            broken(format!(
                "{length} bytes are announced, {} are left",
                self.rest.len()
            ))
        })?;
        self.rest = rest;
        Ok(taken)
    }

    /// An item's first byte and argument (RFC 8949, section 3), in the shortest
    /// form (section 4.2.1).
    fn head(&mut self, major: u8, expected: &str) -> Result<u64, Rejection> {
        let (&first, rest) = self
            .rest
            .split_first()
            .ok_or_else(|| broken(format!("{expected} is missing at the end")))?;
        if first >> 5 != major {
            return Err(broken(format!(
                "byte {first:#04x} where {expected} must begin"
            )));
        }
        self.rest = rest;
        let (argument, least) = match first & 0x1f {
            short @ 0..24 => (u64::from(short), 0),
            24 => (u64::from(u8::from_be_bytes(self.argument()?)), 24),
            25 => (u64::from(u16::from_be_bytes(self.argument()?)), 1 << 8),
            26 => (u64::from(u32::from_be_bytes(self.argument()?)), 1 << 16),
            27 => (u64::from_be_bytes(self.argument()?), 1 << 32),
            _ => {
                return Err(broken(format!(
                    "{expected} of indefinite or reserved length"
                )));
            }
        };
        if argument < least {
            return Err(broken(format!(
                "{argument} is not written in its shortest form"
            )));
        }
        Ok(argument)
    }

    fn argument<const N: usize>(&mut self) -> Result<[u8; N], Rejection> {
        let (argument, rest) = self
            .rest
            .split_first_chunk()
            .ok_or_else(|| broken("the bytes end inside a length"))?;
        self.rest = rest;
        Ok(*argument)
    }
}

fn broken(reason: impl Into<String>) -> Rejection {
    Rejection::new(Rule::Cbor, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skipped(bytes: &[u8]) -> bool {
        let mut cursor = Cursor::new(bytes);
        cursor.skip_item().is_ok() && cursor.left() == 0
    }

    #[test]
    fn an_item_of_any_type_is_skipped_to_its_last_byte() {
        for item in [
            [0x00].as_slice(),
            &[0x20],
            &[0x39, 0x01, 0x00],
            &[0x41, 0xff],
            &[0x61, b'a'],
            &[0x80],
            &[0x82, 0x01, 0x81, 0x02],
            &[0xa1, 0x01, 0x02],
            &[0xbf, 0x61, b'a', 0xa0, 0xff],
            &[0xc1, 0x00],
            &[0xf4],
            &[0xf6],
            &[0xf8, 0x20],
            &[0xf9, 0x3c, 0x00],
            &[0xfb, 0, 0, 0, 0, 0, 0, 0, 0],
        ] {
            assert!(skipped(item), "{item:x?}");
            for length in 0..item.len() {
                assert!(!skipped(&item[..length]), "{length} of {item:x?}");
            }
        }
        for broken in [
            [0x18, 0x01].as_slice(),
            &[0x5f, 0x41, 0x00, 0xff],
            &[0x9f, 0xff],
            &[0x61, 0xff],
            &[0xf8, 0x18],
            &[0xff],
            &[0xfc],
            &[0xbf, 0x01, 0xff],
            &[0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            &[0xbb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00],
            &[0x81; 10],
            &[0xc1; 10_000],
        ] {
            assert!(!skipped(broken), "{broken:x?}");
        }
        let mut nested = vec![0x81; MAX_DEPTH];
        nested.push(0x00);
        assert!(skipped(&nested));
        nested.insert(0, 0x81);
        assert!(!skipped(&nested));
    }
}
