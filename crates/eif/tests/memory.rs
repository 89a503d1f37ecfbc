//! Memory grows neither with an image nor with the sizes that it claims.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod common;

use std::io::{self, Cursor, Read, Seek, SeekFrom, Write};

use common::{build, fix_crc, metadata, signer, small};
use eif::{
    Architecture, Eif, HEADER_BYTES, Image, Json, MAX_METADATA, SECTION_HEADER_BYTES, SectionKind,
    describe,
};
use peak_alloc::PeakAlloc;
use serde_json::Value;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

const MIB: usize = 1024 * 1024;

/// What the most that was in use while `work` ran exceeds what was before.
fn peak<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = HEAP.current_usage();
    HEAP.reset_peak_usage();
    let result = work();
    (result, HEAP.peak_usage().saturating_sub(before))
}

/// A file that keeps its first bytes and the parts that are not zero: what a
/// large image of zeros consists of.
#[derive(Default)]
struct Sparse {
    /// Written pieces without those of zeros, by offset.
    pieces: Vec<(u64, Vec<u8>)>,
    length: u64,
    position: u64,
}

impl Write for Sparse {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.iter().any(|&byte| byte != 0) {
            let position = self.position;
            self.pieces.retain(|(offset, _)| *offset != position);
            self.pieces.push((position, bytes.to_vec()));
        }
        self.position += bytes.len() as u64;
        self.length = self.length.max(self.position);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Sparse {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.length.saturating_sub(self.position)).unwrap();
        let count = buffer.len().min(left);
        let buffer = &mut buffer[..count];
        buffer.fill(0);
        let end = self.position + count as u64;
        for (offset, piece) in &self.pieces {
            let from = self.position.max(*offset);
            let to = end.min(offset + piece.len() as u64);
            if from < to {
                let range = |start| {
                    usize::try_from(from - start).unwrap()..usize::try_from(to - start).unwrap()
                };
                buffer[range(self.position)].copy_from_slice(&piece[range(*offset)]);
            }
        }
        self.position = end;
        Ok(count)
    }
}

impl Seek for Sparse {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.position = match to {
            SeekFrom::Start(offset) => offset,
            SeekFrom::End(offset) => self.length.checked_add_signed(offset).unwrap(),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset).unwrap(),
        };
        Ok(self.position)
    }
}

fn large_images() {
    let signer = signer();
    let metadata = metadata();
    let size = 64 * MIB as u64;
    let mut file = Sparse::default();
    let (written, used) = peak(|| {
        let mut zeros = [(); 3].map(|()| io::repeat(0).take(size));
        eif::write(
            Image {
                architecture: Architecture::X86_64,
                default_memory: 1 << 30,
                default_cpus: 2,
                kernel: &mut io::repeat(0).take(size),
                command_line: "quiet",
                metadata: &metadata,
                ramdisks: zeros
                    .iter_mut()
                    .map(|zeros| zeros as &mut dyn Read)
                    .collect(),
                signer: Some(&signer),
            },
            &mut file,
        )
        .unwrap()
    });
    assert!(file.length > 256 * MIB as u64);
    assert!(used < MIB, "writing used {used} bytes");

    let (mut image, used) = peak(|| Eif::open(file).unwrap());
    assert_eq!(image.measurements(), written);
    assert!(used < MIB, "reading used {used} bytes");

    let ramdisk = image.sections()[3];
    assert_eq!((ramdisk.kind, ramdisk.size), (SectionKind::Ramdisk, size));
    let (copied, used) =
        peak(|| io::copy(&mut image.contents(ramdisk).unwrap(), &mut io::sink()).unwrap());
    assert_eq!(copied, size);
    assert!(used < MIB, "copying a section used {used} bytes");
}

fn lying_sizes() {
    let (image, _) = build(&small(), Some(&signer()));
    let sections = describe(Cursor::new(&image)).unwrap().sections;
    for (index, section) in sections.iter().enumerate() {
        for size in [1 << 30, 1 << 40, u64::MAX] {
            let mut image = image.clone();
            let header = usize::try_from(section.offset).unwrap() - SECTION_HEADER_BYTES;
            for offset in [284 + 8 * index, header + 4] {
                image[offset..offset + 8].copy_from_slice(&size.to_be_bytes());
            }
            fix_crc(&mut image);
            let (result, used) = peak(|| describe(Cursor::new(&image)).map(|_| ()));
            assert!(result.is_err());
            assert!(used < MIB, "{} of {size} bytes used {used}", section.kind);
        }
    }
}

/// A signature that claims many entries, bytes, integers, map fields.
fn lying_lengths_in_a_signature() {
    let (image, _) = build(&small(), None);
    for claim in [
        &b"\x9b\x00\xff\xff\xff\xff\xff\xff\xff"[..],
        b"\x81\xbb\x00\xff\xff\xff\xff\xff\xff\xff",
        b"\x81\xa1\x69signature\x5b\x00\xff\xff\xff\xff\xff\xff\xff",
        b"\x81\xa1\x69signature\x9b\x00\xff\xff\xff\xff\xff\xff\xff",
        b"\x81\xa1\x7b\x00\xff\xff\xff\xff\xff\xff\xff",
    ] {
        let mut image = image.clone();
        let end = image.len() as u64;
        image[27] = 6;
        image[28 + 40..28 + 48].copy_from_slice(&end.to_be_bytes());
        image[284 + 40..284 + 48].copy_from_slice(&(claim.len() as u64).to_be_bytes());
        image.extend(b"\x00\x04\x00\x00");
        image.extend((claim.len() as u64).to_be_bytes());
        image.extend(claim);
        fix_crc(&mut image);
        let (description, used) = peak(|| describe(Cursor::new(&image)).unwrap());
        assert_eq!(description.problems.len(), 1);
        assert!(used < 2 * MIB, "{claim:02x?} used {used} bytes");
    }
}

/// Metadata at its limit of which a parsed value would be many times as large:
/// numbers, and objects in objects.
fn dense_metadata() {
    let bytes = usize::try_from(MAX_METADATA).unwrap() - 2 * HEADER_BYTES;
    let deep = format!("{}0{}", r#"{"":"#.repeat(100), "}".repeat(100));
    let objects = vec![deep.as_str(); bytes / (deep.len() + 1)].join(",");
    let objects: Value = serde_json::from_str(&format!("[{objects}]")).unwrap();
    for content in [vec![0; bytes / 2].into(), objects] {
        one_dense_metadata(content.into());
    }
}

fn one_dense_metadata(content: Json) {
    let mut dense = metadata();
    dense.custom_metadata = content;
    let mut file = Cursor::new(Vec::new());
    eif::write(
        Image {
            architecture: Architecture::X86_64,
            default_memory: 0,
            default_cpus: 0,
            kernel: &mut &b""[..],
            command_line: "",
            metadata: &dense,
            ramdisks: vec![&mut &b""[..]],
            signer: None,
        },
        &mut file,
    )
    .unwrap();
    let (image, used) = peak(|| Eif::open(file).unwrap());
    assert_eq!(image.metadata(), Some(&dense));
    assert!(used < 2 * MIB, "dense metadata used {used} bytes");
}

// One test, as the heap is measured for the process.
#[test]
fn memory_is_bounded() {
    large_images();
    lying_sizes();
    lying_lengths_in_a_signature();
    dense_metadata();
}
