//! The Enclave Image Format (EIF): read, write, measure.
//!
//! An EIF is a header of 548 bytes followed by sections, all integers
//! big-endian: one kernel, one command line, one metadata section, ramdisks,
//! and optionally a signature. A CRC-32 (IEEE) covers the whole file but the
//! CRC itself.
//!
//! | header field | bytes |
//! |---|---|
//! | magic `.eif` | 4 |
//! | version, flags (bit 0: arm64) | 2 + 2 |
//! | default memory in bytes, default CPUs | 8 + 8 |
//! | reserved, number of sections | 2 + 2 |
//! | offsets of the sections' headers, sizes of their contents | 32 × 8 + 32 × 8 |
//! | unused, CRC-32 | 4 + 4 |
//!
//! A section is a header of 12 bytes (type, flags, size) and its contents.
//!
//! # Measurements
//!
//! With `extend(d) = SHA384(48 zero bytes ‖ d)`:
//!
//! * PCR0 = extend(SHA384(kernel ‖ command line ‖ every ramdisk))
//! * PCR1 = extend(SHA384(kernel ‖ command line ‖ first ramdisk))
//! * PCR2 = extend(SHA384(every ramdisk after the first))
//! * PCR8 = extend(SHA384(DER of the signing certificate)), zero when unsigned
//!
//! Only contents are measured, one after the other, not their lengths: a
//! verifier compares PCR0, PCR1 and PCR2 together. The metadata is not measured
//! at all; nothing that matters to security may rest on it.
//!
//! Reading, writing and measuring stream: memory does not grow with the image.

#![forbid(unsafe_code)]

pub mod cpio;
mod error;
mod header;
mod measure;
mod metadata;
mod reader;
mod signature;
mod writer;

pub use error::Error;
pub use header::{
    Architecture, HEADER_BYTES, Header, MAX_COMMAND_LINE, MAX_METADATA, MAX_SECTIONS,
    MAX_SIGNATURE, SectionKind,
};
pub use measure::{Measurements, Pcr, PcrError};
pub use metadata::{BuildMetadata, Metadata};
pub use reader::{Eif, Section};
pub use signature::{Signature, Signer, SigningError};
pub use writer::{Image, write};
