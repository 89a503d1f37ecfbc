//! The two configurations in an image: any bytes are refused in one line, or
//! are a configuration that is the same after it has been written and read
//! again.

#![no_main]

use fuzz::{assert_readable, within};
use libfuzzer_sys::fuzz_target;
use manifest::{HostConfig, MeasuredConfig};

/// Most memory that one input takes, in KiB.
const MEMORY_KIB: usize = 1024;

fn check(bytes: &[u8]) {
    match MeasuredConfig::from_json(bytes) {
        Ok(config) => {
            let written = config.to_json().expect("a configuration that was read");
            let again = MeasuredConfig::from_json(&written).expect("what was written");
            assert_eq!(again, config);
            assert_eq!(again.to_json().expect("the same"), written);
        }
        Err(error) => assert_readable(&error),
    }
    let Ok(value) = serde_json::from_slice(bytes) else {
        assert!(MeasuredConfig::from_json(bytes).is_err());
        return;
    };
    match HostConfig::from_value(&value) {
        Ok(config) => {
            let written = serde_json::to_value(&config).expect("a configuration that was read");
            assert_eq!(
                HostConfig::from_value(&written).expect("what was written"),
                config
            );
        }
        Err(error) => assert_readable(&error),
    }
}

fuzz_target!(|bytes: &[u8]| within(MEMORY_KIB, || check(bytes)));
