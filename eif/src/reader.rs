//! Reading an image and checking all of it.

use std::io::{self, Read, Seek, SeekFrom, Take};

use crc32fast::Hasher;
use serde::Serialize;

use crate::header::{
    CRC_OFFSET, HEADER_BYTES, Header, MAX_COMMAND_LINE, MAX_METADATA, MAX_SIGNATURE,
    SECTION_HEADER_BYTES, SectionKind,
};
use crate::measure::Measurer;
use crate::signature::Signature;
use crate::writer::COPY_BYTES;
use crate::{Error, Measurements, Metadata};

/// Where a section lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Section {
    /// What it holds.
    pub kind: SectionKind,
    /// Offset of its contents in the file.
    pub offset: u64,
    /// Size of its contents in bytes.
    pub size: u64,
}

/// An image whose structure, checksum and signature (if it has one) have been
/// found sound.
#[derive(Debug)]
pub struct Eif<R> {
    reader: R,
    header: Header,
    sections: Vec<Section>,
    measurements: Measurements,
    command_line: String,
    metadata: Option<Metadata>,
    signature: Option<Signature>,
}

impl<R: Read + Seek> Eif<R> {
    /// Reads the whole image once: structure, CRC, measurements, signature.
    pub fn open(mut reader: R) -> Result<Self, Error> {
        let length = reader.seek(SeekFrom::End(0))?;
        reader.seek(SeekFrom::Start(0))?;
        if length < HEADER_BYTES as u64 {
            let mut magic = [0; 4];
            if reader.read_exact(&mut magic).is_ok() && magic != crate::header::MAGIC {
                return Err(Error::Magic(magic));
            }
            return Err(Error::header_truncated(length));
        }
        let mut bytes = [0; HEADER_BYTES];
        reader.read_exact(&mut bytes)?;
        let header = Header::parse(&bytes)?;
        let sections = locate(&mut reader, &header, length)?;
        check_multiplicity(&sections, header.version)?;

        let mut crc = Hasher::new();
        crc.update(bytes.get(..CRC_OFFSET).unwrap_or_default());
        let mut measurements = measure(&mut reader, &sections, &mut crc)?;
        let computed = crc.finalize();
        if computed != header.crc32 {
            return Err(Error::Crc {
                stored: header.crc32,
                computed,
            });
        }

        let command_line = load(
            &mut reader,
            &sections,
            SectionKind::CommandLine,
            MAX_COMMAND_LINE,
        )?
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .filter(|text| !text.contains('\0'))
        .ok_or(Error::CommandLine)?;
        let metadata = load(&mut reader, &sections, SectionKind::Metadata, MAX_METADATA)?
            .map(|bytes| serde_json::from_slice(&bytes).map_err(Error::Metadata))
            .transpose()?;
        let signature = load(
            &mut reader,
            &sections,
            SectionKind::Signature,
            MAX_SIGNATURE,
        )?
        .map(|bytes| Signature::verify(&bytes, measurements.pcr0))
        .transpose()?;
        measurements.pcr8 = signature.as_ref().map(Signature::pcr8);
        Ok(Self {
            reader,
            header,
            sections,
            measurements,
            command_line,
            metadata,
            signature,
        })
    }

    /// The image's header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Every section in file order.
    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// The measurements that an enclave started from the image reports.
    pub fn measurements(&self) -> Measurements {
        self.measurements
    }

    /// The kernel's command line.
    pub fn command_line(&self) -> &str {
        &self.command_line
    }

    /// The build's description; version 3 has none. Not measured.
    pub fn metadata(&self) -> Option<&Metadata> {
        self.metadata.as_ref()
    }

    /// The signature, if the image has one.
    pub fn signature(&self) -> Option<&Signature> {
        self.signature.as_ref()
    }

    /// A section's contents.
    pub fn contents(&mut self, section: Section) -> io::Result<Take<&mut R>> {
        self.reader.seek(SeekFrom::Start(section.offset))?;
        Ok(self.reader.by_ref().take(section.size))
    }
}

/// Reads every section's own header; sections must follow each other without
/// gaps and fill the file.
fn locate<R: Read + Seek>(
    reader: &mut R,
    header: &Header,
    length: u64,
) -> Result<Vec<Section>, Error> {
    let mut sections = Vec::with_capacity(header.sections.len());
    let mut expected = HEADER_BYTES as u64;
    for (index, &(offset, size)) in header.sections.iter().enumerate() {
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
            return Err(Error::Truncated {
                length,
                what: "sections",
                end,
            });
        }
        reader.seek(SeekFrom::Start(offset))?;
        let mut kind = [0; 2];
        let mut flags = [0; 2];
        let mut own_size = [0; 8];
        reader.read_exact(&mut kind)?;
        reader.read_exact(&mut flags)?;
        reader.read_exact(&mut own_size)?;
        let own_size = u64::from_be_bytes(own_size);
        if own_size != size {
            return Err(Error::SectionSize {
                index,
                header: size,
                section: own_size,
            });
        }
        let code = u16::from_be_bytes(kind);
        let kind = SectionKind::from_code(code).ok_or(Error::SectionType { index, kind: code })?;
        sections.push(Section {
            kind,
            offset: contents,
            size,
        });
        expected = end;
    }
    match length.checked_sub(expected) {
        None | Some(0) => Ok(sections),
        Some(trailing) => Err(Error::Trailing(trailing)),
    }
}

fn check_multiplicity(sections: &[Section], version: u16) -> Result<(), Error> {
    let metadata: (_, &str) = match version {
        3 => (0..=0, "none in version 3"),
        _ => (0..=1, "at most one"),
    };
    for (kind, (range, allowed)) in [
        (SectionKind::Kernel, (1..=1, "exactly one")),
        (SectionKind::CommandLine, (1..=1, "exactly one")),
        (SectionKind::Ramdisk, (1..=usize::MAX, "one or more")),
        (SectionKind::Signature, (0..=1, "at most one")),
        (SectionKind::Metadata, metadata),
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

/// Reads all sections once, for their checksum and measurements.
fn measure<R: Read + Seek>(
    reader: &mut R,
    sections: &[Section],
    crc: &mut Hasher,
) -> Result<Measurements, Error> {
    let mut measurer = Measurer::new();
    let mut buffer = vec![0; COPY_BYTES];
    for section in sections {
        reader.seek(SeekFrom::Start(
            section.offset - SECTION_HEADER_BYTES as u64,
        ))?;
        let mut header = [0; SECTION_HEADER_BYTES];
        reader.read_exact(&mut header)?;
        crc.update(&header);
        measurer.section(section.kind);
        let mut left = section.size;
        while left > 0 {
            let step = usize::try_from(left).unwrap_or(COPY_BYTES).min(COPY_BYTES);
            let bytes = buffer.get_mut(..step).unwrap_or_default();
            reader.read_exact(bytes)?;
            crc.update(bytes);
            measurer.update(bytes);
            left -= step as u64;
        }
    }
    Ok(measurer.finish())
}

/// Loads the section of a kind that there is at most one of.
fn load<R: Read + Seek>(
    reader: &mut R,
    sections: &[Section],
    kind: SectionKind,
    limit: u64,
) -> Result<Option<Vec<u8>>, Error> {
    let Some(section) = sections.iter().find(|section| section.kind == kind) else {
        return Ok(None);
    };
    if section.size > limit {
        return Err(Error::SectionLimit {
            kind,
            size: section.size,
        });
    }
    reader.seek(SeekFrom::Start(section.offset))?;
    let mut bytes = Vec::new();
    reader.by_ref().take(section.size).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}
