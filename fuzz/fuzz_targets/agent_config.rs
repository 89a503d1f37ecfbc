//! The agent's configuration, in JSON and in TOML: any text is refused in one line,
//! or names enclaves within their limits.

#![no_main]

use std::collections::BTreeSet;

use fuzz::{assert_readable, within};
use image_fetch::Location;
use libfuzzer_sys::fuzz_target;
use parent_agent::config::{Config, MAX_ENCLAVES};

/// Most memory that one input takes, in KiB.
const MEMORY_KIB: usize = 2048;

fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let config = match Config::parse(text, "test") {
        Ok(config) => config,
        Err(error) => {
            assert!(!error.problems.is_empty());
            return assert_readable(&error);
        }
    };
    assert_eq!(Config::parse(text, "test").expect("the same text"), config);
    assert!((1..=MAX_ENCLAVES).contains(&config.enclaves.len()));
    let names: BTreeSet<_> = config
        .enclaves
        .iter()
        .map(|enclave| &enclave.name)
        .collect();
    assert_eq!(names.len(), config.enclaves.len());
    for enclave in &config.enclaves {
        let location = &enclave.image.location;
        // A file is shown as its path.
        if !matches!(location, Location::File(_)) {
            assert_eq!(location.to_string().parse().as_ref(), Ok(location));
        }
        assert!(!location.needs_sha256() || enclave.image.sha256.is_some());
        assert!(!enclave.id.contains(char::is_control));
    }
}

fuzz_target!(|bytes: &[u8]| within(MEMORY_KIB, || check(bytes)));
