//! Any bytes are read as an archive or refused, and an archive that was read is
//! the same after it has been written again.

#![no_main]

use std::io::Read;

use eif::cpio::{CpioError, Entry, Reader, Writer};
use fuzz::within;
use libfuzzer_sys::fuzz_target;

/// Most memory that one input takes, in KiB.
const MEMORY_KIB: usize = 256;

fn read(bytes: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>, CpioError> {
    let mut reader = Reader::new(bytes);
    let mut entries = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        let mut contents = Vec::new();
        reader.contents().read_to_end(&mut contents)?;
        entries.push((entry, contents));
    }
    Ok(entries)
}

fn check(bytes: &[u8]) {
    let Ok(entries) = read(bytes) else { return };
    let mut writer = Writer::new(Vec::new());
    for (entry, contents) in &entries {
        writer
            .append(entry, contents.as_slice())
            .expect("an entry that was read");
    }
    let again = writer.finish().expect("writing to memory");
    assert_eq!(read(&again).expect("an archive that was written"), entries);
}

fuzz_target!(|bytes: &[u8]| within(MEMORY_KIB, || check(bytes)));
