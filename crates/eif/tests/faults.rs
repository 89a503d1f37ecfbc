//! Files and disks that fail, and images that are not written.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod common;

use std::io::{self, Cursor, Read, Seek, SeekFrom, Write};

use common::{Parts, build, metadata, small};
use eif::{Architecture, Eif, Error, Image, MAX_METADATA, MAX_RAMDISKS, Metadata, SectionKind};
use serde_json::json;

/// Fails to read or write at a given byte.
struct Failing {
    cursor: Cursor<Vec<u8>>,
    at: u64,
}

impl Failing {
    fn check(&self, length: usize) -> io::Result<()> {
        if self.cursor.position() + length as u64 > self.at {
            return Err(io::Error::other("broken disk"));
        }
        Ok(())
    }
}

impl Read for Failing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = buffer.len().min(1);
        self.check(length)?;
        self.cursor.read(&mut buffer[..length])
    }
}

impl Write for Failing {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.check(buffer.len())?;
        self.cursor.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Failing {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.cursor.seek(to)
    }
}

#[test]
fn a_file_that_cannot_be_read() {
    let (image, _) = build(&small(), None);
    let length = image.len() as u64;
    let application = small().ramdisks[1].len() as u64;
    for (at, expected) in [
        (0, 0),
        (547, 0),
        (548, 548),
        (559, 548),
        (length - 1, length - application),
    ] {
        let cursor = Cursor::new(image.clone());
        let error = Eif::open(Failing { cursor, at }).map(|_| ()).unwrap_err();
        assert!(
            matches!(error, Error::Read { offset, .. } if offset == expected),
            "{at}: {error}"
        );
    }
}

#[test]
fn a_disk_that_is_full() {
    let parts = small();
    let length = build(&parts, None).0.len() as u64;
    for at in 0..length {
        let mut output = Failing {
            cursor: Cursor::new(Vec::new()),
            at,
        };
        let error = write(&parts, &metadata(), &mut output).unwrap_err();
        assert!(matches!(error, Error::Write(_)), "{at}: {error}");
    }
}

#[test]
fn a_part_that_cannot_be_read() {
    let mut ramdisk = Failing {
        cursor: Cursor::new(vec![0; 10]),
        at: 5,
    };
    let error = eif::write(
        Image {
            architecture: Architecture::X86_64,
            default_memory: 0,
            default_cpus: 0,
            kernel: &mut &b""[..],
            command_line: "",
            metadata: &metadata(),
            ramdisks: vec![&mut ramdisk],
            signer: None,
        },
        &mut Cursor::new(Vec::new()),
    )
    .unwrap_err();
    assert_eq!(error.to_string(), "the ramdisk cannot be read: broken disk");
}

fn write<W: Write + Seek>(
    parts: &Parts,
    metadata: &Metadata,
    output: &mut W,
) -> Result<eif::Measurements, Error> {
    let mut ramdisks: Vec<_> = parts.ramdisks.iter().map(Vec::as_slice).collect();
    eif::write(
        Image {
            architecture: parts.architecture,
            default_memory: 0,
            default_cpus: 0,
            kernel: &mut parts.kernel.as_slice(),
            command_line: &parts.command_line,
            metadata,
            ramdisks: ramdisks
                .iter_mut()
                .map(|ramdisk| ramdisk as &mut dyn Read)
                .collect(),
            signer: None,
        },
        output,
    )
}

#[test]
fn what_no_reader_would_accept_is_not_written() {
    let refused = |parts: &Parts, metadata: &Metadata| {
        let mut output = Cursor::new(Vec::new());
        let error = write(parts, metadata, &mut output).unwrap_err();
        assert!(output.into_inner().is_empty());
        error
    };
    let mut parts = small();
    parts.ramdisks.clear();
    assert!(matches!(refused(&parts, &metadata()), Error::Ramdisks(0)));
    parts.ramdisks = vec![vec![]; MAX_RAMDISKS + 1];
    assert!(matches!(refused(&parts, &metadata()), Error::Ramdisks(29)));

    let mut parts = small();
    parts.command_line = "quiet\0".to_owned();
    assert!(matches!(
        refused(&parts, &metadata()),
        Error::CommandLine(5)
    ));
    parts.command_line = "x".repeat(2048);
    assert!(matches!(
        refused(&parts, &metadata()),
        Error::SectionLimit {
            kind: SectionKind::CommandLine,
            size: 2048,
            ..
        }
    ));

    let mut large = metadata();
    large.custom_metadata = json!("x".repeat(usize::try_from(MAX_METADATA).unwrap())).into();
    assert!(matches!(
        refused(&small(), &large),
        Error::SectionLimit {
            kind: SectionKind::Metadata,
            ..
        }
    ));

    let mut output = Cursor::new(vec![1]);
    let error = write(&small(), &metadata(), &mut output).unwrap_err();
    assert!(matches!(error, Error::OutputNotEmpty));
    assert_eq!(output.into_inner(), [1]);
}
