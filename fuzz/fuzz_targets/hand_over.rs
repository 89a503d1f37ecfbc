//! Requests and gifts of seeds as a parent hands them in: any bytes are refused in one line,
//! or are the only bytes that are written for what they say.

#![no_main]

use fleet_key::hand_over::{FormatError, Gift, MAX_GIFT, MAX_REQUEST, Request};
use fuzz::{assert_readable, within};
use libfuzzer_sys::fuzz_target;

/// Most memory that one input takes, in KiB: a few copies of the largest.
const MEMORY_KIB: usize = 128;

fn check(bytes: &[u8]) {
    let request = Request::parse(bytes);
    let gift = Gift::parse(bytes);
    assert!(request.is_err() || gift.is_err(), "it is both");
    check_one(
        bytes,
        request.map(|request| request.to_bytes()),
        MAX_REQUEST,
    );
    check_one(bytes, gift.map(|gift| gift.to_bytes()), MAX_GIFT);
}

fn check_one(bytes: &[u8], parsed: Result<Vec<u8>, FormatError>, limit: usize) {
    match parsed {
        Ok(written) => {
            assert!(bytes.len() <= limit);
            assert_eq!(written, bytes);
        }
        Err(error) => assert_readable(&error),
    }
}

fuzz_target!(|bytes: &[u8]| {
    within(MEMORY_KIB, || check(bytes));
});
