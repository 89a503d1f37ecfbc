//! Answers of KMS to a fixed key: any bytes are refused, or open to less than they are,
//! the same each time.

#![no_main]

use std::sync::LazyLock;

use enveloped_data::{MAX_MESSAGE_BYTES, RecipientKey};
use fuzz::{assert_readable, within};
use libfuzzer_sys::fuzz_target;

/// Most memory that one input takes, in KiB.
const MEMORY_KIB: usize = 64;

static KEY: LazyLock<RecipientKey> = LazyLock::new(|| {
    let der = include_bytes!("../../crates/enveloped-data/tests/vectors/recipient.pk8");
    RecipientKey::from_pkcs8(der).expect("a key")
});

fn check(bytes: &[u8]) {
    match KEY.open(bytes) {
        Ok(plaintext) => {
            assert!(bytes.len() <= MAX_MESSAGE_BYTES);
            assert!(plaintext.len() < bytes.len());
            assert_eq!(KEY.open(bytes), Ok(plaintext));
        }
        Err(error) => {
            assert_readable(&error);
            assert_eq!(KEY.open(bytes), Err(error));
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    LazyLock::force(&KEY);
    within(MEMORY_KIB, || check(bytes));
});
