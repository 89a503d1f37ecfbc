//! A strict check of DER (X.690, section 10). The X.509 parser is lenient about
//! what follows in a sequence and how lengths are written; bytes that two
//! parsers may read in two ways are refused before it sees them.

/// Deepest nesting; AWS's certificates have ten levels.
const MAX_DEPTH: usize = 16;

const BOOLEAN: u8 = 0x01;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const NULL: u8 = 0x05;
/// `SEQUENCE` and `SET`: constructed, as no other universal type is.
const SEQUENCES: [u8; 2] = [0x10, 0x11];

const CONSTRUCTED: u8 = 0x20;
const CLASS: u8 = 0xc0;
const LONG_TAG: u8 = 0x1f;

/// One element: its bytes with and without tag and length.
#[derive(Clone, Copy)]
pub(crate) struct Element<'a> {
    tag: u8,
    pub(crate) whole: &'a [u8],
    content: &'a [u8],
}

impl<'a> Element<'a> {
    /// The element that `bytes` are, and nothing else, strict to the last level.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, &'static str> {
        let (element, rest) = Self::split(bytes)?;
        if !rest.is_empty() {
            return Err("bytes follow it");
        }
        element.check(0)?;
        Ok(element)
    }

    /// The elements in this one, which has exactly `N`.
    pub(crate) fn children<const N: usize>(&self) -> Option<[Self; N]> {
        let mut children = [*self; N];
        let mut rest = self.content;
        for child in &mut children {
            (*child, rest) = Self::split(rest).ok()?;
        }
        rest.is_empty().then_some(children)
    }

    /// Whether it is a bit string of whole bytes.
    pub(crate) fn is_whole_bytes(&self) -> bool {
        self.tag == BIT_STRING && self.content.first() == Some(&0)
    }

    fn split(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), &'static str> {
        const CUT: &str = "it ends inside an element";
        let (&tag, rest) = bytes.split_first().ok_or(CUT)?;
        if tag & LONG_TAG == LONG_TAG {
            return Err("it has a tag of more than one byte");
        }
        let (&first, rest) = rest.split_first().ok_or(CUT)?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81 => match rest.split_first().ok_or(CUT)? {
                (&length @ 0x80.., rest) => (usize::from(length), rest),
                _ => return Err("a length is not in its shortest form"),
            },
            0x82 => {
                let (length, rest) = rest.split_first_chunk().ok_or(CUT)?;
                match u16::from_be_bytes(*length) {
                    length @ 0x100.. => (usize::from(length), rest),
                    _ => return Err("a length is not in its shortest form"),
                }
            }
            _ => return Err("a length is indefinite or absurd"),
        };
        let (content, after) = rest.split_at_checked(length).ok_or(CUT)?;
        let whole = bytes.len() - after.len();
        let element = Self {
            tag,
            whole: bytes.get(..whole).unwrap_or_default(),
            content,
        };
        Ok((element, after))
    }

    fn check(&self, depth: usize) -> Result<(), &'static str> {
        if depth > MAX_DEPTH {
            return Err("it is nested too deeply");
        }
        let constructed = self.tag & CONSTRUCTED != 0;
        if self.tag & CLASS == 0 && constructed != SEQUENCES.contains(&(self.tag & LONG_TAG)) {
            return Err("a universal type is not in its only form");
        }
        if constructed {
            let mut rest = self.content;
            while !rest.is_empty() {
                let (child, after) = Self::split(rest)?;
                child.check(depth + 1)?;
                rest = after;
            }
            return Ok(());
        }
        let strict = match (self.tag, self.content) {
            (BOOLEAN, content) => matches!(content, [0x00 | 0xff]),
            (INTEGER, content) => match content {
                [] | [0x00, 0x00..=0x7f, ..] | [0xff, 0x80..=0xff, ..] => false,
                [..] => true,
            },
            (BIT_STRING, content) => match content {
                [unused] => *unused == 0,
                [unused @ 0..=7, .., last] => last & ((1 << unused) - 1) == 0,
                _ => false,
            },
            (NULL, content) => content.is_empty(),
            _ => true,
        };
        if strict {
            Ok(())
        } else {
            Err("a value is not in its only form")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_strict(bytes: &[u8]) -> bool {
        Element::parse(bytes).is_ok()
    }

    #[test]
    fn only_one_form_of_each_value_is_read() {
        assert!(is_strict(&[0x30, 3, 0x02, 1, 0x80]));
        assert!(is_strict(&[0x03, 2, 7, 0x80]));
        assert!(is_strict(&[0x01, 1, 0xff]));
        for lenient in [
            [0x30, 0x81, 3, 0x02, 1, 5].as_slice(),
            &[0x30, 0x82, 0, 3, 0x02, 1, 5],
            &[0x30, 0x83, 0, 0, 3, 0x02, 1, 5],
            &[0x30, 0x80, 0x02, 1, 5, 0, 0],
            &[0x30, 3, 0x02, 1, 5, 0],
            &[0x30, 3, 0x02, 2, 5],
            &[0x10, 3, 0x02, 1, 5],
            &[0x22, 3, 0x02, 1, 5],
            &[0x1f, 0x81, 1, 0],
            &[0x01, 1, 1],
            &[0x02, 0],
            &[0x02, 2, 0, 5],
            &[0x02, 2, 0xff, 0x80],
            &[0x03, 0],
            &[0x03, 1, 1],
            &[0x03, 2, 8, 0],
            &[0x03, 2, 7, 0x81],
            &[0x05, 1, 0],
            &[],
        ] {
            assert!(!is_strict(lenient), "{lenient:x?}");
        }
        let mut nested = vec![0x05, 0];
        for _ in 0..=MAX_DEPTH {
            let length = u8::try_from(nested.len()).unwrap_or(u8::MAX);
            nested.splice(0..0, [0x30, length]);
        }
        assert!(!is_strict(&nested));
        assert!(is_strict(nested.get(2..).unwrap_or_default()));
    }
}
