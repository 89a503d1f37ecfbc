//! The numbers of the format.

use std::fmt;

use serde::Serialize;

/// Size of the image's header in bytes.
pub const HEADER_BYTES: usize = 548;
/// Size of the header in front of each section's contents, in bytes.
pub const SECTION_HEADER_BYTES: usize = 12;
/// Most sections that a header has room for.
pub const MAX_SECTIONS: usize = 32;
/// Fewest sections: a kernel, a command line, a ramdisk.
pub const MIN_SECTIONS: usize = 3;
/// Most ramdisks, beside a kernel, a command line, metadata and a signature.
pub const MAX_RAMDISKS: usize = MAX_SECTIONS - 4;
/// Largest kernel command line in bytes: one less than Linux's
/// `COMMAND_LINE_SIZE` of 2048 on x86-64 and arm64, which includes a zero byte.
pub const MAX_COMMAND_LINE: u64 = 2047;
/// Largest metadata section in bytes.
pub const MAX_METADATA: u64 = 256 * 1024;
/// Largest signature section in bytes.
pub const MAX_SIGNATURE: u64 = 64 * 1024;

/// What a section holds, in the order in which sections stand in an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SectionKind {
    /// The kernel.
    Kernel,
    /// The kernel's command line.
    CommandLine,
    /// JSON about the build. Not measured.
    Metadata,
    /// A cpio archive, usually compressed.
    Ramdisk,
    /// The signature over PCR0.
    Signature,
}

impl SectionKind {
    /// Largest size in bytes, for the kinds that are read into memory.
    pub(crate) const fn limit(self) -> Option<u64> {
        match self {
            Self::CommandLine => Some(MAX_COMMAND_LINE),
            Self::Metadata => Some(MAX_METADATA),
            Self::Signature => Some(MAX_SIGNATURE),
            Self::Kernel | Self::Ramdisk => None,
        }
    }

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
            Self::Metadata => "metadata",
            Self::Ramdisk => "ramdisk",
            Self::Signature => "signature",
        })
    }
}
