//! Log messages: any bytes are refused in one line or are a message within the
//! channel's limits that reads back as it was; so do the records in a compressed
//! batch. The first byte says from which side.

#![no_main]

use fuzz::{assert_readable, decode, encode, within};
use libfuzzer_sys::fuzz_target;
use link::frame::MAX_LOGS;
use link::logs::{
    Compressor, Decompressor, FromAgent, FromInit, LogStream, MAX_BATCH_RECORDS, MAX_RECORD, Record,
};

/// Most memory that one input takes, in KiB: a decompressed batch, its records,
/// and both again.
const MEMORY_KIB: usize = 6 * 1024;

fn check(bytes: &[u8]) {
    let Some((side, body)) = bytes.split_first() else {
        return;
    };
    if side % 2 == 0 {
        let Some(message) = decode::<FromInit<'_>>(body) else {
            return;
        };
        assert_eq!(decode(&encode(&message, MAX_LOGS)), Some(message.clone()));
        let mut decompressor = Decompressor::new().expect("memory");
        match decompressor.records(message) {
            Ok(Some(records)) => {
                assert!(records.len() <= MAX_BATCH_RECORDS);
                assert!(records.iter().all(|record| record.data.len() <= MAX_RECORD));
                again(records);
            }
            Ok(None) => {}
            Err(error) => assert_readable(&error),
        }
    } else {
        let Some(message) = decode::<FromAgent>(body) else {
            return;
        };
        let FromAgent::Stored { last } = &message;
        assert!(last.len() <= LogStream::ALL.len());
        assert_eq!(decode(&encode(&message, MAX_LOGS)), Some(message));
    }
}

/// Records are the same after they have been compressed.
fn again(records: Vec<Record<'_>>) {
    let mut compressor = Compressor::new().expect("memory");
    // What fits into a frame compressed may be too large without.
    if let Ok(message) = compressor.compress(records.clone()) {
        let mut decompressor = Decompressor::new().expect("memory");
        let same = decompressor.records(message).expect("our own batch");
        assert_eq!(same, Some(records));
    }
}

fuzz_target!(|bytes: &[u8]| within(MEMORY_KIB, || check(bytes)));
