//! Signed results and key sets: any bytes are refused in one line, whether or not a key
//! has signed them, or are a result within every limit.

#![no_main]

use std::sync::OnceLock;

use attestation_results::internal::{read_claims, read_header};
use attestation_results::{Expectations, Jwks, MAX_JWKS, SigningKey, verify_at};
use fuzz::{assert_readable, within};
use libfuzzer_sys::fuzz_target;

/// A hundred times the largest key set: each `[]` in it becomes a value.
const MEMORY_KIB: usize = 32 * 1024;
const NOW: u64 = 1_700_000_000;

fn keys() -> &'static Jwks {
    static KEYS: OnceLock<Jwks> = OnceLock::new();
    KEYS.get_or_init(|| {
        let (key, _) = SigningKey::generate().expect("a key");
        let key = serde_json::to_string(key.jwk()).expect("JSON");
        Jwks::from_json(format!("{{\"keys\":[{key}]}}").as_bytes()).expect("a key set")
    })
}

fn check(bytes: &[u8], keys: &Jwks) {
    if let Err(error) = Jwks::from_json(bytes) {
        assert_readable(&error);
    }
    for error in [read_header(bytes).err(), read_claims(bytes).err()]
        .iter()
        .flatten()
    {
        assert_readable(error);
    }
    let Ok(token) = std::str::from_utf8(bytes) else {
        return;
    };
    let expectations = Expectations::without_nonce()
        .allow_any_policy()
        .build()
        .expect("expectations");
    // Nobody has the key.
    let error = verify_at(token, keys, &expectations, NOW).expect_err("a forged result");
    assert_readable(&error);
}

fuzz_target!(|bytes: &[u8]| {
    let bytes = &bytes[..bytes.len().min(MAX_JWKS)];
    let keys = keys();
    within(MEMORY_KIB, || check(bytes, keys));
});
