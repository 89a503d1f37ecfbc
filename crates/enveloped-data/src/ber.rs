//! A reader of BER (X.690), as far as CMS needs it: elements whose tag is known
//! beforehand, with definite or indefinite lengths.
//!
//! It does not recurse: how deep elements nest is what the caller's calls nest.

use crate::malformed::Malformed;

/// Most octets that say how long an element is, after the one that counts them.
const MAX_LENGTH_OCTETS: usize = 4;
/// In place of a length: the element ends with [`END_OF_CONTENTS`].
const INDEFINITE: u8 = 0x80;
const END_OF_CONTENTS: [u8; 2] = [0, 0];

/// An identifier octet: class, whether constructed, and a number below 31.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tag(pub(crate) u8);

impl Tag {
    pub(crate) const INTEGER: Self = Self(0x02);
    pub(crate) const OCTET_STRING: Self = Self(0x04);
    pub(crate) const NULL: Self = Self(0x05);
    pub(crate) const OBJECT_IDENTIFIER: Self = Self(0x06);
    pub(crate) const SEQUENCE: Self = Self(0x30);
    pub(crate) const SET: Self = Self(0x31);

    /// Context-specific and primitive.
    pub(crate) const fn context(number: u8) -> Self {
        Self(0x80 | number)
    }

    /// Context-specific and constructed.
    pub(crate) const fn constructed(number: u8) -> Self {
        Self(0xa0 | number)
    }
}

enum Length {
    Definite(usize),
    Indefinite,
}

/// What of a message, or of an element of definite length in it, has not been read.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    /// Where `rest` begins in the message.
    offset: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(message: &'a [u8]) -> Self {
        Self {
            rest: message,
            offset: 0,
        }
    }

    /// Where the next element begins.
    pub(crate) fn offset(&self) -> usize {
        self.offset
    }

    pub(crate) fn next_is(&self, tag: Tag) -> bool {
        self.rest.first() == Some(&tag.0)
    }

    /// Whether the element being read, of definite or indefinite length, has no more in it.
    pub(crate) fn is_at_end(&self) -> bool {
        self.rest.is_empty() || self.rest.starts_with(&END_OF_CONTENTS)
    }

    /// The contents of an element of definite length.
    pub(crate) fn contents(&mut self, tag: Tag, what: &'static str) -> Result<&'a [u8], Malformed> {
        let offset = self.offset;
        match self.header(tag, what)? {
            Length::Definite(length) => self.take(length, offset, what),
            Length::Indefinite => Err(Malformed::Length { offset, what }),
        }
    }

    /// What `read` makes of a constructed element's contents, all of which it has to read.
    pub(crate) fn constructed<T>(
        &mut self,
        tag: Tag,
        what: &'static str,
        read: impl FnOnce(&mut Self) -> Result<T, Malformed>,
    ) -> Result<T, Malformed> {
        let offset = self.offset;
        match self.header(tag, what)? {
            Length::Definite(length) => {
                let mut contents = Self {
                    offset: self.offset,
                    rest: self.take(length, offset, what)?,
                };
                let value = read(&mut contents)?;
                contents.end()?;
                Ok(value)
            }
            Length::Indefinite => {
                let value = read(self)?;
                let end = self.offset;
                if self.take(END_OF_CONTENTS.len(), offset, what)? == END_OF_CONTENTS {
                    Ok(value)
                } else {
                    Err(Malformed::Trailing(end))
                }
            }
        }
    }

    /// The end of the message, or of an element of definite length.
    pub(crate) fn end(&self) -> Result<(), Malformed> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(Malformed::Trailing(self.offset))
        }
    }

    fn header(&mut self, tag: Tag, what: &'static str) -> Result<Length, Malformed> {
        let offset = self.offset;
        if !self.next_is(tag) {
            return Err(Malformed::Unexpected { offset, what });
        }
        self.take(1, offset, what)?;
        let &[first] = self.take(1, offset, what)? else {
            return Err(Malformed::Truncated { offset, what });
        };
        if first == INDEFINITE {
            return Ok(Length::Indefinite);
        }
        if first < INDEFINITE {
            return Ok(Length::Definite(usize::from(first)));
        }
        let count = usize::from(first & !INDEFINITE);
        if count > MAX_LENGTH_OCTETS {
            return Err(Malformed::Length { offset, what });
        }
        let octets = self.take(count, offset, what)?;
        let length = octets
            .iter()
            .fold(0u32, |length, &octet| length << 8 | u32::from(octet));
        usize::try_from(length)
            .map(Length::Definite)
            .map_err(|_| Malformed::Length { offset, what })
    }

    fn take(
        &mut self,
        length: usize,
        offset: usize,
        what: &'static str,
    ) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or(Malformed::Truncated { offset, what })?;
        self.rest = rest;
        self.offset += length;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHAT: &str = "an element";

    fn octets(bytes: &[u8]) -> Result<&[u8], Malformed> {
        let mut reader = Reader::new(bytes);
        let contents = reader.contents(Tag::OCTET_STRING, WHAT)?;
        reader.end()?;
        Ok(contents)
    }

    #[test]
    fn lengths_of_every_form_are_read() {
        assert_eq!(octets(&[4, 0]), Ok([].as_slice()));
        assert_eq!(octets(&[4, 2, 8, 9]), Ok([8, 9].as_slice()));
        // BER allows more octets than needed.
        assert_eq!(octets(&[4, 0x81, 1, 9]), Ok([9].as_slice()));
        assert_eq!(octets(&[4, 0x84, 0, 0, 0, 1, 9]), Ok([9].as_slice()));
        let long = [[4, 0x82, 1, 0].as_slice(), &[7; 256]].concat();
        assert_eq!(octets(&long), Ok([7; 256].as_slice()));
    }

    #[test]
    fn lengths_beyond_the_message_are_refused() {
        let truncated = Malformed::Truncated {
            offset: 0,
            what: WHAT,
        };
        for bytes in [
            &[4][..],
            &[4, 1],
            &[4, 0x82, 1],
            &[4, 0x84, 0xff, 0xff, 0xff, 0xff, 0],
        ] {
            assert_eq!(octets(bytes), Err(truncated.clone()), "{bytes:?}");
        }
    }

    #[test]
    fn lengths_that_ber_does_not_have_are_refused() {
        let refused = Err(Malformed::Length {
            offset: 0,
            what: WHAT,
        });
        // Five octets, the reserved form, and an indefinite length of a primitive element.
        assert_eq!(octets(&[4, 0x85, 0, 0, 0, 0, 1, 9]), refused);
        assert_eq!(octets(&[4, 0xff]), refused);
        assert_eq!(octets(&[4, 0x80, 9, 0, 0]), refused);
    }

    fn list(bytes: &[u8]) -> Result<Vec<u8>, Malformed> {
        let mut reader = Reader::new(bytes);
        let list = reader.constructed(Tag::SEQUENCE, "a list", |reader| {
            let mut list = Vec::new();
            while !reader.is_at_end() {
                list.extend(reader.contents(Tag::OCTET_STRING, WHAT)?);
            }
            Ok(list)
        })?;
        reader.end()?;
        Ok(list)
    }

    #[test]
    fn constructed_elements_end_where_they_say() {
        assert_eq!(list(&[0x30, 6, 4, 1, 8, 4, 1, 9]), Ok(vec![8, 9]));
        assert_eq!(list(&[0x30, 0x80, 4, 1, 8, 4, 1, 9, 0, 0]), Ok(vec![8, 9]));
        // Too short, too long, without an end, with one too many, and with the wrong end.
        assert_eq!(list(&[0x30, 3, 4, 1, 8, 9]), Err(Malformed::Trailing(5)));
        assert!(list(&[0x30, 4, 4, 1, 8]).is_err());
        assert!(list(&[0x30, 0x80, 4, 1, 8]).is_err());
        assert!(list(&[0x30, 0x80, 4, 1, 8, 0]).is_err());
        assert_eq!(
            list(&[0x30, 0x80, 4, 1, 8, 0, 0, 0, 0]),
            Err(Malformed::Trailing(7))
        );
        assert_eq!(list(&[0x30, 5, 4, 1, 8, 0, 0]), Err(Malformed::Trailing(5)));
    }

    #[test]
    fn errors_say_where() {
        for bytes in [&[0x30, 6, 4, 1, 8, 5, 1, 9][..], &[0x30, 0x80, 4, 1, 8, 5]] {
            let error = list(bytes).unwrap_err();
            assert_eq!(error.to_string(), "byte 5 does not begin an element");
        }
        let error = octets(&[]).unwrap_err();
        assert_eq!(error.to_string(), "byte 0 does not begin an element");
    }
}
