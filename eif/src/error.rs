//! Why an image was refused or could not be written.

use std::io;

use thiserror::Error;

use crate::header::{
    HEADER_BYTES, MAX_COMMAND_LINE, MAX_METADATA, MAX_SECTIONS, MAX_SIGNATURE, SectionKind,
};
use crate::signature::SigningError;

/// Why an image was refused or could not be written.
#[derive(Debug, Error)]
pub enum Error {
    /// Reading or writing failed.
    #[error("input/output failed: {0}")]
    Io(#[from] io::Error),
    /// Fewer bytes than the header promises.
    #[error(
        "the image ends at byte {length}, but its {what} reaches to byte {end}: it is truncated, copy it again"
    )]
    Truncated {
        /// The file's length in bytes.
        length: u64,
        /// What goes beyond the end.
        what: &'static str,
        /// Where that would end.
        end: u64,
    },
    /// The file does not begin with `.eif`.
    #[error("this is not an EIF: it begins with {0:02x?} instead of \".eif\"")]
    Magic([u8; 4]),
    /// A version that is neither 3 nor 4.
    #[error("EIF version {0} is not supported (3 and 4 are): build the image again")]
    Version(u16),
    /// A flag that has no meaning.
    #[error("the header has unknown flags {0:#06x}: build the image again")]
    Flags(u16),
    /// No section, or more than the header has room for.
    #[error("the header counts {0} sections; an EIF has 2 to {MAX_SECTIONS}")]
    SectionCount(u16),
    /// A section lies where it cannot.
    #[error(
        "section {index} is said to start at byte {offset}, but byte {expected} is where it must start: sections follow each other without gaps"
    )]
    SectionOffset {
        /// The section, counted from zero.
        index: usize,
        /// Where the header says it starts.
        offset: u64,
        /// The end of the section before it.
        expected: u64,
    },
    /// The header and the section disagree about a size.
    #[error(
        "section {index} has {section} bytes by its own header and {header} by the image's: the image is damaged"
    )]
    SectionSize {
        /// The section, counted from zero.
        index: usize,
        /// By the image's header.
        header: u64,
        /// By the section's own header.
        section: u64,
    },
    /// A type that has no meaning.
    #[error("section {index} has unknown type {kind}")]
    SectionType {
        /// The section, counted from zero.
        index: usize,
        /// The type found.
        kind: u16,
    },
    /// A kind of section is there twice, or absent.
    #[error("the image has {found} {kind} sections, not {allowed}")]
    SectionMultiplicity {
        /// The kind.
        kind: SectionKind,
        /// How many there are.
        found: usize,
        /// How many there may be.
        allowed: &'static str,
    },
    /// A section that is read into memory is larger than its limit.
    #[error(
        "the {kind} section has {size} bytes; the limits are {MAX_COMMAND_LINE} for a command line, {MAX_METADATA} for metadata, {MAX_SIGNATURE} for a signature"
    )]
    SectionLimit {
        /// The kind.
        kind: SectionKind,
        /// Its size in bytes.
        size: u64,
    },
    /// Bytes behind the last section.
    #[error("{0} bytes follow the last section: the image is damaged")]
    Trailing(u64),
    /// The checksum does not fit the contents.
    #[error(
        "the CRC-32 is {computed:08x}, the header says {stored:08x}: the image is damaged, copy it again"
    )]
    Crc {
        /// In the header.
        stored: u32,
        /// Of the bytes read.
        computed: u32,
    },
    /// The command line is not text.
    #[error("the kernel command line is not UTF-8 text, or contains a zero byte")]
    CommandLine,
    /// The metadata is not the JSON it should be.
    #[error("the metadata section cannot be read: {0}")]
    Metadata(serde_json::Error),
    /// The signature section is not what it should be, or does not hold.
    #[error(transparent)]
    Signature(#[from] SigningError),
    /// More sections than the header has room for.
    #[error("{0} ramdisks do not fit: an EIF has at most {MAX_SECTIONS} sections")]
    TooManyRamdisks(usize),
    /// A ramdisk is needed.
    #[error("an image needs at least one ramdisk")]
    NoRamdisk,
    /// Larger than offsets can express.
    #[error("the image would be larger than {} bytes", u64::MAX)]
    TooLarge,
}

impl Error {
    pub(crate) fn header_truncated(length: u64) -> Self {
        Self::Truncated {
            length,
            what: "header",
            end: HEADER_BYTES as u64,
        }
    }
}
