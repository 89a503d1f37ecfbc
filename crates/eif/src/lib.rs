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
//! A section is a header of 12 bytes (type in 2, flags in 2, size of the
//! contents in 8) and its contents. Flags are zero.
//!
//! | type | section | how many | limit |
//! |---|---|---|---|
//! | 1 | kernel | 1 | |
//! | 2 | command line, UTF-8 without a zero byte | 1 | [`MAX_COMMAND_LINE`] |
//! | 5 | metadata, JSON: [`Metadata`]; version 4 only | 0 or 1 | [`MAX_METADATA`] |
//! | 3 | ramdisk: a [`cpio`] archive, usually compressed | 1 to [`MAX_RAMDISKS`] | |
//! | 4 | signature: CBOR, see [`Signature`] | 0 or 1 | [`MAX_SIGNATURE`] |
//!
//! AWS's tools write the sections in the order of this table, one right behind
//! the other. Their readers accept more than that; this one does not: an image
//! with another order, gaps, overlaps, bytes behind the last section or a bit
//! set where none has a meaning is refused, so that an image says the same to
//! everyone who reads it. Versions 3 and 4 are read, version 4 is written.
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
//! # Use
//!
//! [`write()`] makes an image, [`Eif::open`] reads one and vouches for its
//! structure, checksum and signature, [`describe`] reports on one whatever is
//! wrong with it. All three stream: they read every byte once, and their memory
//! grows neither with the image nor with the sizes that it claims. What they
//! keep of it in memory has the limits above.
//!
//! ```
//! use eif::{Architecture, Eif, Image, Metadata, SectionKind};
//! use std::io::{Cursor, Read};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let metadata: Metadata = serde_json::from_str(
//!     r#"{"ImageName": "payments", "ImageVersion": "1", "BuildMetadata": {
//!         "BuildTime": "1970-01-01T00:00:00Z", "BuildTool": "example",
//!         "BuildToolVersion": "1", "OperatingSystem": "Linux", "KernelVersion": "6.12"}}"#,
//! )?;
//! let mut file = Cursor::new(Vec::new());
//! let written = eif::write(
//!     Image {
//!         architecture: Architecture::X86_64,
//!         default_memory: 1 << 30,
//!         default_cpus: 2,
//!         kernel: &mut &b"kernel"[..],
//!         command_line: "console=ttyS0",
//!         metadata: &metadata,
//!         ramdisks: vec![&mut &b"boot"[..], &mut &b"application"[..]],
//!         signer: None,
//!     },
//!     &mut file,
//! )?;
//!
//! let mut image = Eif::open(file)?;
//! assert_eq!(image.measurements(), written);
//! let application = image.sections()[4];
//! assert_eq!(application.kind, SectionKind::Ramdisk);
//! let mut text = String::new();
//! image.contents(application)?.read_to_string(&mut text)?;
//! assert_eq!(text, "application");
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod certificate;
pub mod cpio;
mod describe;
mod error;
mod format;
mod header;
mod measure;
mod metadata;
mod reader;
mod section;
mod signature;
mod writer;

pub use certificate::Certificate;
pub use describe::{Description, describe};
pub use error::{Error, SigningError};
pub use format::{
    HEADER_BYTES, MAX_COMMAND_LINE, MAX_METADATA, MAX_RAMDISKS, MAX_SECTIONS, MAX_SIGNATURE,
    MIN_SECTIONS, SECTION_HEADER_BYTES, SectionKind,
};
pub use header::{Architecture, Header};
pub use measurements::{Measurements, Pcr, PcrError};
pub use metadata::{BuildMetadata, Json, Metadata};
pub use reader::Eif;
pub use section::{Contents, Section};
pub use signature::{Signature, Signer};
pub use writer::{Image, write};
