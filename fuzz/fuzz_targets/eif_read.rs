//! Any bytes are described or refused, and an image without problems holds
//! together.

#![no_main]

use std::io::{Cursor, sink};

use eif::{Eif, HEADER_BYTES, SECTION_HEADER_BYTES, describe};
use fuzz::within;
use libfuzzer_sys::fuzz_target;

/// Most memory that one input takes, in KiB.
const MEMORY_KIB: usize = 512;

fn check(bytes: &[u8]) {
    let description = describe(Cursor::new(bytes));
    let image = Eif::open(Cursor::new(bytes));
    let description = match description {
        // A wrong CRC hides nothing: everything else has been looked at.
        Ok(description) if !description.problems.is_empty() => {
            assert!(image.is_err());
            return;
        }
        Ok(description) => description,
        Err(error) => {
            assert!(!error.to_string().contains('\n'));
            assert!(image.is_err());
            return;
        }
    };
    let mut image = image.expect("an image without problems");
    assert_eq!(image.measurements(), description.measurements);
    let mut length = HEADER_BYTES as u64;
    for section in image.sections().to_vec() {
        let mut contents = image.contents(section).expect("a section's contents");
        let copied = std::io::copy(&mut contents, &mut sink()).expect("all of them");
        assert_eq!(copied, section.size);
        length += SECTION_HEADER_BYTES as u64 + section.size;
    }
    assert_eq!(length, bytes.len() as u64);
}

fuzz_target!(|bytes: &[u8]| within(MEMORY_KIB, || check(bytes)));
