//! The fixed part of an image, and what a section can be.

use std::fmt;

use serde::Serialize;

use crate::error::Error;
use crate::format::{HEADER_BYTES, MAX_SECTIONS, MIN_SECTIONS, SECTION_HEADER_BYTES, SectionKind};

pub(crate) const MAGIC: [u8; 4] = *b".eif";
/// Where the CRC is: the last four bytes of the header.
pub(crate) const CRC_OFFSET: usize = HEADER_BYTES - 4;
/// The version that is written.
const VERSION: u16 = 4;
const FLAG_ARM64: u16 = 1;

/// The processor that an image is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Architecture {
    /// 64-bit x86.
    X86_64,
    /// 64-bit Arm.
    Aarch64,
}

/// The image's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Format version, 3 or 4.
    pub version: u16,
    /// The processor that the image is for.
    pub architecture: Architecture,
    /// Memory to start with unless told otherwise, in bytes. Not measured.
    pub default_memory: u64,
    /// CPUs to start with unless told otherwise. Not measured.
    pub default_cpus: u64,
    /// CRC-32 (IEEE) of all bytes but its own four.
    pub crc32: u32,
}

/// Where the header says that a section lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Offset of the section's own header.
    pub(crate) offset: u64,
    /// Size of its contents.
    pub(crate) size: u64,
}

impl SectionKind {
    pub(crate) fn check_size(self, size: u64) -> Result<(), Error> {
        match self.limit() {
            Some(limit) if size > limit => Err(Error::SectionLimit {
                kind: self,
                size,
                limit,
            }),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        })
    }
}

impl Header {
    /// A header of the version that is written, its CRC still to be set.
    pub(crate) fn new(architecture: Architecture, default_memory: u64, default_cpus: u64) -> Self {
        Self {
            version: VERSION,
            architecture,
            default_memory,
            default_cpus,
            crc32: 0,
        }
    }

    /// Reads the header's bytes; says nothing yet of the sections themselves.
    pub(crate) fn parse(bytes: &[u8; HEADER_BYTES]) -> Result<(Self, Vec<Extent>), Error> {
        let mut fields = Fields(bytes);
        let magic = fields.take();
        if magic != MAGIC {
            return Err(Error::Magic(magic));
        }
        let version = u16::from_be_bytes(fields.take());
        if !matches!(version, 3 | 4) {
            return Err(Error::Version(version));
        }
        let flags = u16::from_be_bytes(fields.take());
        let architecture = match flags {
            0 => Architecture::X86_64,
            FLAG_ARM64 => Architecture::Aarch64,
            _ => return Err(Error::Flags(flags)),
        };
        let default_memory = u64::from_be_bytes(fields.take());
        let default_cpus = u64::from_be_bytes(fields.take());
        let _reserved: [u8; 2] = fields.take();
        let count = u16::from_be_bytes(fields.take());
        if !(MIN_SECTIONS..=MAX_SECTIONS).contains(&count.into()) {
            return Err(Error::SectionCount(count));
        }
        let offsets: [u64; MAX_SECTIONS] =
            std::array::from_fn(|_| u64::from_be_bytes(fields.take()));
        let sizes: [u64; MAX_SECTIONS] = std::array::from_fn(|_| u64::from_be_bytes(fields.take()));
        let _unused: [u8; 4] = fields.take();
        let crc32 = u32::from_be_bytes(fields.take());
        let header = Self {
            version,
            architecture,
            default_memory,
            default_cpus,
            crc32,
        };
        let extents: Vec<_> = offsets
            .into_iter()
            .zip(sizes)
            .take(count.into())
            .map(|(offset, size)| Extent { offset, size })
            .collect();
        // What has no meaning is zero when written anew.
        let canonical = header.encode(&extents);
        match canonical
            .iter()
            .zip(bytes)
            .position(|(new, old)| new != old)
        {
            None => Ok((header, extents)),
            Some(offset) => Err(Error::Reserved(offset as u64)),
        }
    }

    /// The header's bytes; `extents` are at most [`MAX_SECTIONS`].
    pub(crate) fn encode(&self, extents: &[Extent]) -> Vec<u8> {
        let flags = match self.architecture {
            Architecture::X86_64 => 0,
            Architecture::Aarch64 => FLAG_ARM64,
        };
        let count = u16::try_from(extents.len()).expect("at most MAX_SECTIONS");
        let column = |pick: fn(&Extent) -> u64| {
            (0..MAX_SECTIONS)
                .flat_map(move |index| extents.get(index).map_or(0, pick).to_be_bytes())
        };
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend(MAGIC);
        bytes.extend(self.version.to_be_bytes());
        bytes.extend(flags.to_be_bytes());
        bytes.extend(self.default_memory.to_be_bytes());
        bytes.extend(self.default_cpus.to_be_bytes());
        bytes.extend([0; 2]);
        bytes.extend(count.to_be_bytes());
        bytes.extend(column(|extent| extent.offset));
        bytes.extend(column(|extent| extent.size));
        bytes.extend([0; 4]);
        bytes.extend(self.crc32.to_be_bytes());
        bytes
    }
}

/// The header in front of a section's contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SectionHeader {
    pub(crate) kind: SectionKind,
    pub(crate) size: u64,
}

impl SectionHeader {
    /// Reads the header of the section `index`, which `extent` describes.
    pub(crate) fn parse(
        bytes: &[u8; SECTION_HEADER_BYTES],
        index: usize,
        extent: Extent,
    ) -> Result<Self, Error> {
        let offset = extent.offset;
        let mut fields = Fields(bytes);
        let found = u16::from_be_bytes(fields.take());
        let kind = SectionKind::from_code(found).ok_or(Error::SectionType {
            index,
            offset,
            found,
        })?;
        let flags = u16::from_be_bytes(fields.take());
        if flags != 0 {
            return Err(Error::SectionFlags {
                index,
                offset,
                flags,
            });
        }
        let size = u64::from_be_bytes(fields.take());
        if size != extent.size {
            return Err(Error::SectionSize {
                index,
                offset,
                header: extent.size,
                section: size,
            });
        }
        kind.check_size(size)?;
        Ok(Self { kind, size })
    }

    pub(crate) fn encode(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(SECTION_HEADER_BYTES);
        bytes.extend(self.kind.code().to_be_bytes());
        bytes.extend([0; 2]);
        bytes.extend(self.size.to_be_bytes());
        bytes
    }
}

/// Takes fixed-size fields off the front of a header.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    /// The next `N` bytes; zeros behind the end, which fixed sizes never reach.
    fn take<const N: usize>(&mut self) -> [u8; N] {
        match self.0.split_first_chunk() {
            Some((field, rest)) => {
                self.0 = rest;
                *field
            }
            None => [0; N],
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header() -> (Header, Vec<Extent>) {
        let mut header = Header::new(Architecture::Aarch64, 1 << 30, 2);
        header.crc32 = 0x0102_0304;
        let extents = (1..=3).map(|n| Extent { offset: n, size: n });
        (header, extents.collect())
    }

    fn encoded() -> [u8; HEADER_BYTES] {
        let (header, extents) = header();
        header.encode(&extents).try_into().unwrap()
    }

    #[test]
    fn what_is_encoded_is_parsed() {
        assert_eq!(Header::parse(&encoded()).unwrap(), header());
    }

    #[test]
    fn fields_lie_where_the_format_says() {
        let bytes = encoded();
        assert_eq!(&bytes[..8], b".eif\x00\x04\x00\x01");
        assert_eq!(bytes[8..16], (1u64 << 30).to_be_bytes());
        assert_eq!(bytes[16..24], 2u64.to_be_bytes());
        assert_eq!(bytes[24..28], [0, 0, 0, 3]);
        assert_eq!(bytes[28..36], 1u64.to_be_bytes());
        assert_eq!(bytes[284..292], 1u64.to_be_bytes());
        assert_eq!(bytes[544..], [1, 2, 3, 4]);
    }

    #[test]
    fn what_has_no_meaning_must_be_zero() {
        // Reserved, the fourth offset and size of three, the last ones, unused.
        for offset in [24, 28 + 3 * 8, 284 + 3 * 8, 283, 539, 540, 543] {
            let mut bytes = encoded();
            bytes[offset] = 1;
            let error = Header::parse(&bytes).unwrap_err();
            assert!(
                matches!(error, Error::Reserved(at) if at == offset as u64),
                "{error}"
            );
        }
    }

    #[test]
    fn only_known_versions_flags_and_counts_are_accepted() {
        let with = |offset: usize, value: u16| {
            let mut bytes = encoded();
            bytes[offset..offset + 2].copy_from_slice(&value.to_be_bytes());
            Header::parse(&bytes)
        };
        for version in [0, 1, 2, 5, u16::MAX] {
            assert!(matches!(with(4, version), Err(Error::Version(found)) if found == version));
        }
        for flags in [2, 3, 0x8000] {
            assert!(matches!(with(6, flags), Err(Error::Flags(found)) if found == flags));
        }
        for count in [0, 2, 33, u16::MAX] {
            assert!(matches!(with(26, count), Err(Error::SectionCount(found)) if found == count));
        }
        assert!(with(4, 3).is_ok());
        assert!(with(6, 0).is_ok());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_not_panic(mut bytes in prop::collection::vec(any::<u8>(), HEADER_BYTES)) {
            let _ = Header::parse(bytes.as_slice().try_into().unwrap());
            bytes[..8].copy_from_slice(b".eif\x00\x04\x00\x00");
            bytes[26..28].copy_from_slice(&[0, 32]);
            let _ = Header::parse(bytes.as_slice().try_into().unwrap());
        }
    }
}
