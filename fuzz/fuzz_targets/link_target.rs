//! The target of an egress or ingress connection and the reply to it: any bytes
//! are refused in one line or are a message that fits into its frame and reads
//! back as it was. The first byte says which.

#![no_main]

use fuzz::{decode, encode, within};
use libfuzzer_sys::fuzz_target;
use link::frame::MAX_TARGET;
use link::target::{Connect, Reply};

/// Most memory that one input takes, in KiB.
const MEMORY_KIB: usize = 128;

fn check(bytes: &[u8]) {
    let Some((kind, body)) = bytes.split_first() else {
        return;
    };
    if kind % 2 == 0 {
        if let Some(message) = decode::<Connect>(body) {
            assert_eq!(decode(&encode(&message, MAX_TARGET)), Some(message));
        }
    } else if let Some(message) = decode::<Reply>(body) {
        assert_eq!(decode(&encode(&message, MAX_TARGET)), Some(message));
    }
}

fuzz_target!(|bytes: &[u8]| within(MEMORY_KIB, || check(bytes)));
