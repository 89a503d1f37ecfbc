//! Log messages: any bytes are refused in one line or are a message within the
//! channel's limits that reads back as it was. The first byte says from which
//! side.

#![no_main]

use fuzz::{decode, encode, within};
use libfuzzer_sys::fuzz_target;
use link::frame::MAX_LOGS;
use link::logs::{FromAgent, FromInit, LogStream, MAX_BATCH_RECORDS, MAX_RECORD};

/// Most memory that one input takes, in KiB.
const MEMORY_KIB: usize = 2048;

fn check(bytes: &[u8]) {
    let Some((side, body)) = bytes.split_first() else {
        return;
    };
    if side % 2 == 0 {
        let Some(message) = decode::<FromInit<'_>>(body) else {
            return;
        };
        if let FromInit::Batch { records } = &message {
            assert!(records.len() <= MAX_BATCH_RECORDS);
            assert!(records.iter().all(|record| record.data.len() <= MAX_RECORD));
        }
        assert_eq!(decode(&encode(&message, MAX_LOGS)), Some(message));
    } else {
        let Some(message) = decode::<FromAgent>(body) else {
            return;
        };
        let FromAgent::Stored { last } = &message;
        assert!(last.len() <= LogStream::ALL.len());
        assert_eq!(decode(&encode(&message, MAX_LOGS)), Some(message));
    }
}

fuzz_target!(|bytes: &[u8]| within(MEMORY_KIB, || check(bytes)));
