//! Where the sections of an image lie, and reading one.

use std::io::{self, Read, Seek, SeekFrom};

use serde::Serialize;

use crate::Error;
use crate::format::{HEADER_BYTES, SECTION_HEADER_BYTES, SectionKind};
use crate::header::{Extent, Header, MAGIC, SectionHeader};

/// Where a section lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Section {
    /// What it holds.
    pub kind: SectionKind,
    /// Offset of its contents in the file.
    pub offset: u64,
    /// Size of its contents in bytes.
    pub size: u64,
}

/// Reads the contents of one section. A file that has become shorter since it
/// was opened ends with [`io::ErrorKind::UnexpectedEof`], not early.
#[derive(Debug)]
pub struct Contents<'a, R> {
    reader: &'a mut R,
    left: u64,
}

impl Section {
    /// The section's contents in `reader`, the image that it was found in.
    pub fn contents<'a, R: Read + Seek>(&self, reader: &'a mut R) -> io::Result<Contents<'a, R>> {
        reader.seek(SeekFrom::Start(self.offset))?;
        Ok(Contents {
            reader,
            left: self.size,
        })
    }

    /// Reads a section that has a limit into memory.
    pub(crate) fn load<R: Read + Seek>(&self, reader: &mut R) -> Result<Vec<u8>, Error> {
        self.kind.check_size(self.size)?;
        let mut bytes = Vec::new();
        self.contents(reader)
            .and_then(|mut contents| contents.read_to_end(&mut bytes))
            .map_err(|source| self.unreadable(source))?;
        Ok(bytes)
    }

    pub(crate) fn unreadable(&self, source: io::Error) -> Error {
        Error::Read {
            offset: self.offset,
            source,
        }
    }
}

impl<R: Read> Read for Contents<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.by_ref().take(self.left).read(buffer)?;
        if count == 0 && self.left > 0 && !buffer.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= count as u64;
        Ok(count)
    }
}

/// An image's structure, found sound.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) header: Header,
    pub(crate) sections: Vec<Section>,
}

impl Layout {
    /// Reads the image's header and those of its sections.
    pub(crate) fn read<R: Read + Seek>(reader: &mut R) -> Result<Self, Error> {
        let unreadable = |source| Error::Read { offset: 0, source };
        let length = reader.seek(SeekFrom::End(0)).map_err(unreadable)?;
        reader.seek(SeekFrom::Start(0)).map_err(unreadable)?;
        if length < HEADER_BYTES as u64 {
            let mut start = Vec::new();
            reader
                .take(MAGIC.len() as u64)
                .read_to_end(&mut start)
                .map_err(unreadable)?;
            return Err(match start.try_into() {
                Ok(start) if start != MAGIC => Error::Magic(start),
                _ => Error::HeaderTruncated(length),
            });
        }
        let mut bytes = [0; HEADER_BYTES];
        reader.read_exact(&mut bytes).map_err(unreadable)?;
        let (header, extents) = Header::parse(&bytes)?;
        let sections = locate(reader, &extents, length)?;
        check_multiplicity(&sections, header.version)?;
        check_order(&sections)?;
        Ok(Self { header, sections })
    }

    /// The section of a kind that there is at most one of.
    pub(crate) fn find(&self, kind: SectionKind) -> Option<Section> {
        let mut sections = self.sections.iter();
        sections.find(|section| section.kind == kind).copied()
    }

    /// The header's bytes as they are in the file.
    pub(crate) fn header_bytes(&self) -> Vec<u8> {
        let extents: Vec<_> = self.sections.iter().map(Section::extent).collect();
        self.header.encode(&extents)
    }
}

impl Section {
    fn extent(&self) -> Extent {
        Extent {
            offset: self.header_offset(),
            size: self.size,
        }
    }

    fn header_offset(&self) -> u64 {
        self.offset - SECTION_HEADER_BYTES as u64
    }
}

/// Reads every section's own header; sections must follow each other without
/// gaps and fill the file.
fn locate<R: Read + Seek>(
    reader: &mut R,
    extents: &[Extent],
    length: u64,
) -> Result<Vec<Section>, Error> {
    let mut sections = Vec::with_capacity(extents.len());
    let mut expected = HEADER_BYTES as u64;
    for (index, &extent) in extents.iter().enumerate() {
        let Extent { offset, size } = extent;
        if offset != expected {
            return Err(Error::SectionOffset {
                index,
                offset,
                expected,
            });
        }
        let contents = offset.saturating_add(SECTION_HEADER_BYTES as u64);
        let end = contents.saturating_add(size);
        if end > length {
            return Err(Error::Truncated { index, length, end });
        }
        let mut bytes = [0; SECTION_HEADER_BYTES];
        reader
            .seek(SeekFrom::Start(offset))
            .and_then(|_| reader.read_exact(&mut bytes))
            .map_err(|source| Error::Read { offset, source })?;
        let SectionHeader { kind, size } = SectionHeader::parse(&bytes, index, extent)?;
        sections.push(Section {
            kind,
            offset: contents,
            size,
        });
        expected = end;
    }
    match length.saturating_sub(expected) {
        0 => Ok(sections),
        count => Err(Error::Trailing {
            end: expected,
            count,
        }),
    }
}

fn check_multiplicity(sections: &[Section], version: u16) -> Result<(), Error> {
    let metadata: (_, &str) = match version {
        3 => (0..=0, "none, as version 3 demands"),
        _ => (0..=1, "at most one"),
    };
    for (kind, (range, allowed)) in [
        (SectionKind::Kernel, (1..=1, "exactly one")),
        (SectionKind::CommandLine, (1..=1, "exactly one")),
        (SectionKind::Metadata, metadata),
        (SectionKind::Ramdisk, (1..=usize::MAX, "one or more")),
        (SectionKind::Signature, (0..=1, "at most one")),
    ] {
        let found = sections
            .iter()
            .filter(|section| section.kind == kind)
            .count();
        if !range.contains(&found) {
            return Err(Error::SectionMultiplicity {
                kind,
                found,
                allowed,
            });
        }
    }
    Ok(())
}

/// Contents are measured in file order, so another order would measure the
/// same parts differently.
fn check_order(sections: &[Section]) -> Result<(), Error> {
    for (index, (previous, section)) in sections.iter().zip(sections.iter().skip(1)).enumerate() {
        if section.kind < previous.kind {
            return Err(Error::SectionOrder {
                index: index + 1,
                offset: section.header_offset(),
                kind: section.kind,
                previous: previous.kind,
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[test]
    fn contents_are_bounded_and_never_short() {
        let section = |size| Section {
            kind: SectionKind::Kernel,
            offset: 1,
            size,
        };
        let mut file = Cursor::new(b"abcd");
        let mut text = String::new();
        let read = section(2)
            .contents(&mut file)
            .unwrap()
            .read_to_string(&mut text);
        assert_eq!((read.unwrap(), text.as_str()), (2, "bc"));
        let error = section(4)
            .contents(&mut file)
            .unwrap()
            .read_to_string(&mut text)
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
