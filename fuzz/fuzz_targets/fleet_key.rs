//! Messages of a hand-over as a parent carries them: any bytes are refused in one line, or
//! are the one form of a message, whose document proves nothing.

#![no_main]

use fleet_key::{Answer, MAX_MESSAGE, Nonce, Request};
use fuzz::{assert_readable, within};
use libfuzzer_sys::fuzz_target;

/// Most memory that one input takes, in KiB: a few copies of the largest.
const MEMORY_KIB: usize = 128;

fn check(bytes: &[u8]) {
    match Request::parse(bytes) {
        Ok(request) => {
            assert!(bytes.len() <= MAX_MESSAGE);
            assert_eq!(request.to_bytes(), bytes);
        }
        Err(error) => assert_readable(&error),
    }
    match Answer::parse(bytes) {
        Ok(answer) => {
            assert!(bytes.len() <= MAX_MESSAGE);
            assert_eq!(answer.to_bytes(), bytes);
            // It is of another form than a nonce of a receiver.
            assert!(Nonce::parse(&answer.challenge()).is_err());
        }
        Err(error) => assert_readable(&error),
    }
    match Nonce::parse(bytes) {
        Ok(nonce) => assert_eq!(nonce.as_bytes(), bytes),
        Err(error) => assert_readable(&error),
    }
}

fuzz_target!(|bytes: &[u8]| within(MEMORY_KIB, || check(bytes)));
