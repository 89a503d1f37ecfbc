//! The fixed part of an image, and what a section can be.

use std::fmt;

use serde::Serialize;

use crate::Error;

/// Size of the image's header in bytes.
pub const HEADER_BYTES: usize = 548;
/// Most sections that a header has room for.
pub const MAX_SECTIONS: usize = 32;
/// Largest kernel command line in bytes (`COMMAND_LINE_SIZE` of x86-64 and arm64).
pub const MAX_COMMAND_LINE: u64 = 2048;
/// Largest metadata section in bytes.
pub const MAX_METADATA: u64 = 1024 * 1024;
/// Largest signature section in bytes.
pub const MAX_SIGNATURE: u64 = 64 * 1024;

pub(crate) const MAGIC: [u8; 4] = *b".eif";
pub(crate) const SECTION_HEADER_BYTES: usize = 12;
/// Where the CRC is: the last four bytes of the header.
pub(crate) const CRC_OFFSET: usize = HEADER_BYTES - 4;
const VERSION: u16 = 4;
const FLAG_ARM64: u16 = 1;

/// The processor that an image is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Architecture {
    /// 64-bit x86.
    X86_64,
    /// 64-bit Arm.
    Aarch64,
}

/// What a section holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SectionKind {
    /// The kernel.
    Kernel,
    /// The kernel's command line.
    CommandLine,
    /// A cpio archive, usually compressed.
    Ramdisk,
    /// The signature over PCR0.
    Signature,
    /// JSON about the build. Not measured.
    Metadata,
}

/// The image's header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Header {
    /// Format version, 3 or 4.
    pub version: u16,
    /// The processor that the image is for.
    pub architecture: Architecture,
    /// Memory to start with unless told otherwise, in bytes.
    pub default_memory: u64,
    /// CPUs to start with unless told otherwise.
    pub default_cpus: u64,
    /// CRC-32 (IEEE) of all bytes but its own four.
    pub crc32: u32,
    /// Offset of each section's header, and size of its contents.
    #[serde(skip)]
    pub(crate) sections: Vec<(u64, u64)>,
}

impl SectionKind {
    pub(crate) const fn code(self) -> u16 {
        match self {
            Self::Kernel => 1,
            Self::CommandLine => 2,
            Self::Ramdisk => 3,
            Self::Signature => 4,
            Self::Metadata => 5,
        }
    }

    pub(crate) const fn from_code(code: u16) -> Option<Self> {
        match code {
            1 => Some(Self::Kernel),
            2 => Some(Self::CommandLine),
            3 => Some(Self::Ramdisk),
            4 => Some(Self::Signature),
            5 => Some(Self::Metadata),
            _ => None,
        }
    }
}

impl fmt::Display for SectionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Kernel => "kernel",
            Self::CommandLine => "command line",
            Self::Ramdisk => "ramdisk",
            Self::Signature => "signature",
            Self::Metadata => "metadata",
        })
    }
}

impl Header {
    /// A header of the current version, its CRC still to be set.
    pub(crate) fn new(architecture: Architecture, default_memory: u64, default_cpus: u64) -> Self {
        Self {
            version: VERSION,
            architecture,
            default_memory,
            default_cpus,
            crc32: 0,
            sections: Vec::new(),
        }
    }

    /// Reads the header's bytes; says nothing yet of the sections themselves.
    pub(crate) fn parse(bytes: &[u8; HEADER_BYTES]) -> Result<Self, Error> {
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
        if flags & !FLAG_ARM64 != 0 {
            return Err(Error::Flags(flags));
        }
        let default_memory = u64::from_be_bytes(fields.take());
        let default_cpus = u64::from_be_bytes(fields.take());
        let _reserved: [u8; 2] = fields.take();
        let count = u16::from_be_bytes(fields.take());
        if !(2..=MAX_SECTIONS).contains(&usize::from(count)) {
            return Err(Error::SectionCount(count));
        }
        let offsets: [u64; MAX_SECTIONS] =
            std::array::from_fn(|_| u64::from_be_bytes(fields.take()));
        let sizes: [u64; MAX_SECTIONS] = std::array::from_fn(|_| u64::from_be_bytes(fields.take()));
        let _unused: [u8; 4] = fields.take();
        let crc32 = u32::from_be_bytes(fields.take());
        Ok(Self {
            version,
            architecture: if flags & FLAG_ARM64 == 0 {
                Architecture::X86_64
            } else {
                Architecture::Aarch64
            },
            default_memory,
            default_cpus,
            crc32,
            sections: offsets.into_iter().zip(sizes).take(count.into()).collect(),
        })
    }

    /// The header's bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let flags = match self.architecture {
            Architecture::X86_64 => 0,
            Architecture::Aarch64 => FLAG_ARM64,
        };
        let count = u16::try_from(self.sections.len()).unwrap_or(u16::MAX);
        let column = |pick: fn(&(u64, u64)) -> u64| {
            (0..MAX_SECTIONS)
                .flat_map(move |index| self.sections.get(index).map_or(0, pick).to_be_bytes())
        };
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend(MAGIC);
        bytes.extend(self.version.to_be_bytes());
        bytes.extend(flags.to_be_bytes());
        bytes.extend(self.default_memory.to_be_bytes());
        bytes.extend(self.default_cpus.to_be_bytes());
        bytes.extend([0; 2]);
        bytes.extend(count.to_be_bytes());
        bytes.extend(column(|section| section.0));
        bytes.extend(column(|section| section.1));
        bytes.extend([0; 4]);
        bytes.extend(self.crc32.to_be_bytes());
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
