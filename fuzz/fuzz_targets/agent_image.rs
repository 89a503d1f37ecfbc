//! Images as `parent-agent run` opens them: any file is refused in one line or
//! can be described without a problem, and its ramdisks unpack or are refused
//! without touching what lies outside. The checksum is put right first, which no
//! fuzzer guesses.

#![no_main]

use std::fs::{self, File};
use std::io::BufReader;
use std::ops::Range;

use eif::HEADER_BYTES;
use enclave_host::image::Image;
use enclave_host::ramdisk::{Owners, Unpacker};
use fuzz::{assert_readable, within};
use libfuzzer_sys::fuzz_target;

/// Most memory that one input takes, in KiB.
const MEMORY_KIB: usize = 512;

/// Where the header has the CRC-32 of everything else.
const CRC: Range<usize> = HEADER_BYTES - 4..HEADER_BYTES;

fn check(bytes: &[u8]) {
    let mut bytes = bytes.to_vec();
    if bytes.len() >= HEADER_BYTES {
        let mut crc = crc32fast::Hasher::new();
        crc.update(&bytes[..CRC.start]);
        crc.update(&bytes[CRC.end..]);
        bytes[CRC].copy_from_slice(&crc.finalize().to_be_bytes());
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("image.eif");
    fs::write(&path, &bytes).expect("the image");
    let image = match Image::open(&path) {
        Ok(image) => image,
        Err(error) => return assert_readable(&error),
    };
    let description = eif::describe(File::open(&path).expect("the image")).expect("a sound image");
    assert!(description.problems.is_empty());
    assert_eq!(description.measurements, image.measurements());
    let root = folder.path().join("root");
    fs::create_dir(&root).expect("the root");
    let mut unpacker = Unpacker::new(&root, image.host().memory_mib, Owners::Caller);
    let mut file = File::open(&path).expect("the image");
    for ramdisk in image.ramdisks() {
        let contents = ramdisk
            .contents(&mut file)
            .expect("a section of a sound image");
        if let Err(error) = unpacker.unpack(BufReader::new(contents)) {
            assert_readable(&error);
            break;
        }
    }
    assert_eq!(fs::read_dir(folder.path()).expect("it is there").count(), 2);
    assert_eq!(fs::read(&path).expect("it is there"), bytes);
}

fuzz_target!(|bytes: &[u8]| within(MEMORY_KIB, || check(bytes)));
