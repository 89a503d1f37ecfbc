//! Why an image was refused or could not be written.

use std::io;

use thiserror::Error;

use crate::format::{HEADER_BYTES, MAX_RAMDISKS, MAX_SECTIONS, MIN_SECTIONS, SectionKind};

/// Why an image was refused or could not be written. Offsets are in bytes from
/// the image's start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The image cannot be read.
    #[error("the image cannot be read at byte {offset}: {source}")]
    Read {
        /// Where the part that was being read begins.
        offset: u64,
        /// Why.
        source: io::Error,
    },
    /// A part to be written into an image cannot be read.
    #[error("the {kind} cannot be read: {source}")]
    Input {
        /// The part.
        kind: SectionKind,
        /// Why.
        source: io::Error,
    },
    /// The image cannot be written.
    #[error("the image cannot be written: {0}")]
    Write(io::Error),
    /// The file does not begin with `.eif`.
    #[error("this is not an EIF: it begins with {0:02x?} instead of \".eif\"")]
    Magic([u8; 4]),
    /// The file ends within the header.
    #[error(
        "the image has {0} bytes, which is less than its header of {HEADER_BYTES}: it is truncated, copy it again"
    )]
    HeaderTruncated(u64),
    /// The file ends within a section, or the section's size is a lie.
    #[error(
        "the image ends at byte {length}, but its section {index} reaches to byte {end}: it is truncated, copy it again"
    )]
    Truncated {
        /// The section, counted from zero.
        index: usize,
        /// The file's length.
        length: u64,
        /// Where the section would end; `u64::MAX` also stands for beyond that.
        end: u64,
    },
    /// A version that is neither 3 nor 4.
    #[error(
        "EIF version {0} (byte 4) is not supported, 3 and 4 are: build the image again with a current tool"
    )]
    Version(u16),
    /// A flag that has no meaning.
    #[error(
        "the header's flags {0:#06x} (byte 6) are unknown: build the image again with a current tool"
    )]
    Flags(u16),
    /// Too few sections, or more than the header has room for.
    #[error(
        "the header counts {0} sections (byte 26), but an EIF has {MIN_SECTIONS} to {MAX_SECTIONS}: the image is damaged"
    )]
    SectionCount(u16),
    /// A part of the header that must be zero is not.
    #[error(
        "byte {0} of the header is not zero, though nothing there has a meaning: the image is damaged, or its tool too new"
    )]
    Reserved(u64),
    /// A section leaves a gap to the one before, or overlaps it.
    #[error(
        "section {index} is said to start at byte {offset} instead of byte {expected}, where the one before it ends: the image is damaged"
    )]
    SectionOffset {
        /// The section, counted from zero.
        index: usize,
        /// Where the header says it starts.
        offset: u64,
        /// The end of the section before it, or of the header.
        expected: u64,
    },
    /// The header and the section disagree about a size.
    #[error(
        "section {index} at byte {offset} has {section} bytes by its own header and {header} by the image's: the image is damaged"
    )]
    SectionSize {
        /// The section, counted from zero.
        index: usize,
        /// Where the section's header is.
        offset: u64,
        /// By the image's header.
        header: u64,
        /// By the section's own header.
        section: u64,
    },
    /// A type that has no meaning.
    #[error(
        "section {index} at byte {offset} has the unknown type {found}: the image is damaged, or its tool too new"
    )]
    SectionType {
        /// The section, counted from zero.
        index: usize,
        /// Where the section's header is.
        offset: u64,
        /// The type found.
        found: u16,
    },
    /// Flags on a section, which have no meaning.
    #[error(
        "section {index} at byte {offset} has the unknown flags {flags:#06x}: the image is damaged, or its tool too new"
    )]
    SectionFlags {
        /// The section, counted from zero.
        index: usize,
        /// Where the section's header is.
        offset: u64,
        /// The flags found.
        flags: u16,
    },
    /// A section that is read into memory is larger than its limit.
    #[error("the {kind} has {size} bytes, but at most {limit} are allowed: make it shorter")]
    SectionLimit {
        /// The kind.
        kind: SectionKind,
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// A kind of section is there too often, or not at all.
    #[error(
        "the image has {found} {kind} sections instead of {allowed}: build it again with a current tool"
    )]
    SectionMultiplicity {
        /// The kind.
        kind: SectionKind,
        /// How many there are.
        found: usize,
        /// How many there may be.
        allowed: &'static str,
    },
    /// A section comes after one that it must precede.
    #[error(
        "the {kind} (section {index} at byte {offset}) comes after the {previous}: the order is kernel, command line, metadata, ramdisks, signature"
    )]
    SectionOrder {
        /// The section, counted from zero.
        index: usize,
        /// Where the section's header is.
        offset: u64,
        /// Its kind.
        kind: SectionKind,
        /// The kind of the section before it.
        previous: SectionKind,
    },
    /// Bytes behind the last section.
    #[error(
        "{count} bytes follow the last section, which ends at byte {end}: the image is damaged, copy it again"
    )]
    Trailing {
        /// Where the last section ends.
        end: u64,
        /// How many bytes follow.
        count: u64,
    },
    /// The checksum does not fit the contents.
    #[error(
        "the image's CRC-32 is {computed:08x}, but its header says {stored:08x}: it is damaged, copy it again"
    )]
    Crc {
        /// In the header.
        stored: u32,
        /// Of the bytes read.
        computed: u32,
    },
    /// The command line is not text.
    #[error(
        "the kernel command line is not UTF-8 or has a zero byte at its byte {0}: write it as plain text"
    )]
    CommandLine(usize),
    /// The metadata is not the JSON it should be.
    #[error("the metadata cannot be read: {0}")]
    Metadata(serde_json::Error),
    /// The metadata cannot be written as JSON.
    #[error("the metadata cannot be written as JSON: {0}")]
    MetadataJson(serde_json::Error),
    /// The signature section is not what it should be, or does not hold.
    #[error(transparent)]
    Signature(#[from] SigningError),
    /// More ramdisks than the header has room for, or none.
    #[error("an image needs 1 to {MAX_RAMDISKS} ramdisks, {0} were given")]
    Ramdisks(usize),
    /// The output already holds something.
    #[error("the output is not empty: an image is written to a new file")]
    OutputNotEmpty,
    /// Larger than offsets can express.
    #[error("the image would be larger than {} bytes", u64::MAX)]
    TooLarge,
}

/// Why an image cannot be signed, or its signature does not hold.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SigningError {
    /// The private key is not one that can be used.
    #[error(
        "the signing key cannot be used ({0}): give an unencrypted PEM file with a PKCS#8 or SEC1 key on P-256, P-384 or P-521"
    )]
    Key(String),
    /// The certificate is not one that can be used.
    #[error(
        "the signing certificate cannot be used ({0}): give a PEM file with one X.509 certificate for a P-256, P-384 or P-521 key, and nothing else"
    )]
    Certificate(String),
    /// The key and the certificate do not belong together.
    #[error(
        "the signing key does not belong to the signing certificate ({0}): give the key that the certificate was made for"
    )]
    Mismatch(String),
    /// Signing failed.
    #[error("signing failed: {0}")]
    Sign(String),
    /// The section is not what it should be.
    #[error("the signature section cannot be read: {0}; do not use this image")]
    Malformed(String),
    /// The signature does not fit the certificate, or the image.
    #[error("the signature is not valid: {0}; do not use this image")]
    Invalid(&'static str),
}
