//! The two configurations in an image: any bytes are refused in one line, or
//! are a configuration that is the same after it has been written and read
//! again.

#![no_main]

use fuzz::{assert_readable, within};
use libfuzzer_sys::fuzz_target;
use manifest::{HOST_CONFIG_KEY, HostConfig, MeasuredConfig};

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
    if serde_json::from_slice::<serde_json::Value>(bytes).is_err() {
        assert!(MeasuredConfig::from_json(bytes).is_err());
        assert!(HostConfig::from_json(bytes).is_err());
        return;
    }
    match HostConfig::from_json(bytes) {
        Ok(config) => {
            let written = serde_json::to_string(&config).expect("a configuration that was read");
            assert_eq!(
                HostConfig::from_json(written.as_bytes()).expect("what was written"),
                config
            );
            let metadata = format!("{{\"{HOST_CONFIG_KEY}\":{written}}}");
            assert_eq!(
                HostConfig::from_metadata(&metadata).expect("the same"),
                Some(config)
            );
        }
        Err(error) => assert_readable(&error),
    }
}

fuzz_target!(|bytes: &[u8]| within(MEMORY_KIB, || check(bytes)));
