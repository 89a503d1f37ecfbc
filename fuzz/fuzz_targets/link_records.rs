//! A question about a name's records and the answer to it: any bytes are refused in one line
//! or are a message within its limits that reads back as it was. The first byte says which.

#![no_main]

use fuzz::{decode, encode, within};
use libfuzzer_sys::fuzz_target;
use link::frame::MAX_TARGET;
use link::records::{Answer, MAX_ANSWER, MAX_RECORDS, MAX_STRINGS, Question, Strings};

/// Most memory that one input takes, in KiB: an answer, and what its texts are kept in.
const MEMORY_KIB: usize = 512;

fn check(bytes: &[u8]) {
    let Some((kind, body)) = bytes.split_first() else {
        return;
    };
    if kind % 2 == 0 {
        if let Some(message) = decode::<Question>(body) {
            assert_eq!(decode(&encode(&message, MAX_TARGET)), Some(message));
        }
    } else if body.len() <= MAX_ANSWER
        && let Some(message) = decode::<Answer>(body)
    {
        match &message {
            Answer::Services { records, .. } => assert!(records.len() <= MAX_RECORDS),
            Answer::Texts { records, .. } => {
                let fit = |Strings(strings): &Strings| strings.len() <= MAX_STRINGS;
                assert!(records.len() <= MAX_RECORDS && records.iter().all(fit));
            }
            Answer::Refused { .. } => {}
        }
        assert_eq!(decode(&encode(&message, MAX_ANSWER)), Some(message));
    }
}

fuzz_target!(|bytes: &[u8]| within(MEMORY_KIB, || check(bytes)));
