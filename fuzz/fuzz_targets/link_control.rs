//! Control messages: any bytes are refused in one line or are a message that
//! fits into a frame and reads back as it was. The first byte says from which
//! side.

#![no_main]

use fuzz::{decode, encode, within};
use libfuzzer_sys::fuzz_target;
use link::control::{FromAgent, FromInit};
use link::frame::MAX_CONTROL;

/// Most memory that one input takes, in KiB.
const MEMORY_KIB: usize = 128;

fn check(bytes: &[u8]) {
    let Some((side, body)) = bytes.split_first() else {
        return;
    };
    if side % 2 == 0 {
        if let Some(message) = decode::<FromInit>(body) {
            assert_eq!(decode(&encode(&message, MAX_CONTROL)), Some(message));
        }
    } else if let Some(message) = decode::<FromAgent>(body) {
        assert_eq!(decode(&encode(&message, MAX_CONTROL)), Some(message));
    }
}

fuzz_target!(|bytes: &[u8]| within(MEMORY_KIB, || check(bytes)));
