//! What is compressed, as known by what it begins with: names and media types say it wrong
//! too often.

use std::io::{self, Read};

use thiserror::Error;

/// Largest window of a zstd frame, as a power of two: 128 MiB, what zstd itself
/// accepts unless told otherwise. It is memory.
const MAX_ZSTD_WINDOW: u32 = 27;
/// Bytes that tell the formats from each other.
const HEAD: u64 = 10;
/// A skippable frame, with which some writers begin: its first byte may be any of sixteen
/// (RFC 8878, section 3.1.2).
const SKIPPABLE: [u8; 3] = [0x2a, 0x4d, 0x18];

/// Formats that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Plain,
    Gzip,
    Zstd,
}

/// Why something cannot be decompressed.
#[derive(Debug, Error)]
pub(crate) enum CompressionError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(
        "it is compressed in a way that is not read: decompress it first, with `{0} --decompress`"
    )]
    Format(&'static str),
}

/// What is read, decompressed if it is compressed.
pub(crate) struct Decompressed<'a> {
    pub(crate) reader: Box<dyn Read + 'a>,
    /// Whether it was.
    pub(crate) is_compressed: bool,
}

/// Reads the beginning of the stored bytes, and then all of them, decompressed.
pub(crate) fn decompressed<'a>(
    mut stored: impl Read + 'a,
) -> Result<Decompressed<'a>, CompressionError> {
    let mut head = Vec::new();
    stored.by_ref().take(HEAD).read_to_end(&mut head)?;
    let format = format(&head)?;
    let whole = io::Cursor::new(head).chain(stored);
    let reader: Box<dyn Read + 'a> = match format {
        Format::Plain => Box::new(whole),
        Format::Gzip => Box::new(flate2::read::MultiGzDecoder::new(whole)),
        Format::Zstd => {
            let mut decoder = zstd::Decoder::new(whole)?;
            decoder.window_log_max(MAX_ZSTD_WINDOW)?;
            Box::new(decoder)
        }
    };
    Ok(Decompressed {
        reader,
        is_compressed: format != Format::Plain,
    })
}

fn format(head: &[u8]) -> Result<Format, CompressionError> {
    match head {
        [0x1f, 0x8b, ..] => Ok(Format::Gzip),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Ok(Format::Zstd),
        [0x50..=0x5f, rest @ ..] if rest.starts_with(&SKIPPABLE) => Ok(Format::Zstd),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Err(CompressionError::Format("xz")),
        // A tar archive may begin with a file whose name begins with the first three.
        [
            b'B',
            b'Z',
            b'h',
            b'1'..=b'9',
            b'1',
            b'A',
            b'Y',
            b'&',
            b'S',
            b'Y',
        ] => Err(CompressionError::Format("bzip2")),
        [0x04, 0x22, 0x4d, 0x18, ..] => Err(CompressionError::Format("lz4")),
        _ => Ok(Format::Plain),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compression_is_known_by_the_first_bytes() {
        for (head, expected) in [
            (&b"\x1f\x8b\x08"[..], Format::Gzip),
            (b"\x28\xb5\x2f\xfd", Format::Zstd),
            (b"\x5e\x2a\x4d\x18", Format::Zstd),
            (b"\x2a\x4d\x18", Format::Plain),
            (b"manifest.json", Format::Plain),
            (b"BZh9 is a name", Format::Plain),
            (b"", Format::Plain),
        ] {
            assert_eq!(format(head).unwrap(), expected, "{head:?}");
        }
        for (head, program) in [
            (&b"\xfd7zXZ\0\0\x04"[..], "`xz --decompress`"),
            (b"BZh91AY&SY", "`bzip2 --decompress`"),
            (b"\x04\x22\x4d\x18", "`lz4 --decompress`"),
        ] {
            let error = format(head).unwrap_err().to_string();
            assert!(error.ends_with(program), "{error}");
        }
    }
}
