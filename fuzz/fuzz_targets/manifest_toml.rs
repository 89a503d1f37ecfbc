//! `enclave.toml`: any text is refused in one line that names a line of the
//! file, or is a manifest within its limits.

#![no_main]

use std::path::Path;

use fuzz::{assert_readable, within};
use libfuzzer_sys::fuzz_target;
use manifest::{
    EgressRule, EnclaveName, MAX_EGRESS_RULES, MAX_INGRESS_RULES, Manifest, ManifestError,
};

/// Most memory that one input takes, in KiB.
const MEMORY_KIB: usize = 2048;

fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let file = Path::new("/deploy/enclave.toml");
    let manifest = match Manifest::parse(text, file) {
        Ok(manifest) => manifest,
        Err(error) => {
            assert_readable(&error);
            let ManifestError::Invalid { line, message, .. } = error else {
                panic!("not about the text: {error}");
            };
            assert!(!message.is_empty());
            assert!(
                (1..=text.split('\n').count()).contains(&line),
                "line {line}"
            );
            return;
        }
    };
    assert_eq!(
        Manifest::parse(text, file).expect("the same text"),
        manifest
    );
    let name = manifest.enclave.name.to_string();
    assert_eq!(
        name.parse::<EnclaveName>().expect("a name"),
        manifest.enclave.name
    );
    assert!(manifest.network.egress.len() <= MAX_EGRESS_RULES);
    assert!(manifest.network.ingress.len() <= MAX_INGRESS_RULES);
    for rule in &manifest.network.egress {
        assert_eq!(
            &rule.to_string().parse::<EgressRule>().expect("a rule"),
            rule
        );
    }
}

fuzz_target!(|bytes: &[u8]| within(MEMORY_KIB, || check(bytes)));
