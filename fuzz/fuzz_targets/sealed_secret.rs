//! Sealed secrets as a parent hands them in: any bytes are refused in one line, or are a
//! secret that opens to nobody but the key that it was sealed to.

#![no_main]

use std::sync::LazyLock;

use fuzz::{assert_readable, within};
use libfuzzer_sys::fuzz_target;
use measurements::Pcr;
use sealed_secret::{Binding, MAX_NAME, MAX_SEALED, Sealed, SealingKey, Sender};

/// Most memory that one input takes, in KiB: a few copies of the largest.
const MEMORY_KIB: usize = 256;

struct Init {
    key: SealingKey,
    sender: Sender,
    binding: Binding,
}

static INIT: LazyLock<Init> = LazyLock::new(|| {
    let pem = include_bytes!("../../crates/sealed-secret/tests/vectors/sender.pem");
    Init {
        key: SealingKey::generate().expect("random bytes"),
        sender: Sender::from_pem(pem).expect("a key"),
        binding: Binding::new("i-1-enc1", [(0, Pcr::ZERO)]),
    }
});

fn check(bytes: &[u8]) {
    match Sealed::parse(bytes) {
        Ok(sealed) => {
            assert!(bytes.len() <= MAX_SEALED);
            assert!((1..=MAX_NAME).contains(&sealed.name().len()));
            assert!(sealed.registers().is_sorted());
            // Nobody has the key of this run.
            let opened = INIT.key.open(&sealed, &INIT.sender, &INIT.binding);
            assert_readable(&opened.expect_err("a new key"));
        }
        Err(error) => assert_readable(&error),
    }
}

fuzz_target!(|bytes: &[u8]| {
    LazyLock::force(&INIT);
    within(MEMORY_KIB, || check(bytes));
});
