//! What an OCI registry says, and what is said about it: manifests, challenges,
//! addresses, Docker's configuration. The first byte chooses.

#![no_main]

use fuzz::{assert_readable, within};
use image_fetch::Reference;
use image_fetch::internal::{Challenge, Layer, docker_key};
use libfuzzer_sys::fuzz_target;

/// Most memory that one input takes, in KiB.
const MEMORY_KIB: usize = 1024;

fn check(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else {
        return;
    };
    let Ok(text) = std::str::from_utf8(bytes) else {
        if let Err(error) = Layer::of_manifest(bytes) {
            assert_readable(&error);
        }
        return;
    };
    match kind {
        b'm' => match Layer::of_manifest(bytes) {
            Ok(layer) => assert!(
                text.to_lowercase().contains(&layer.sha256.to_string()) || text.contains('\\')
            ),
            Err(error) => assert_readable(&error),
        },
        b'c' => {
            // What is long makes nothing longer.
            if let Some(Challenge::Bearer { realm, .. }) = Challenge::parse(text) {
                assert!(realm.len() <= text.len());
            }
        }
        b'r' => {
            if let Ok(reference) = text.parse::<Reference>() {
                let (base, repository) = (reference.base(), reference.repository());
                let url = format!("{base}/v2/{repository}/manifests/{}", reference.version());
                let url: http::Uri = url.parse().expect("an URL");
                let authority = url.authority().expect("a host").as_str();
                assert!(!authority.contains('@'));
                assert!(url.path().starts_with("/v2/") && url.query().is_none());
                let is_here = ["localhost", "127.0.0.1", "[::1]"];
                assert_eq!(
                    url.scheme_str() == Some("http"),
                    is_here.contains(&url.host().expect("a host"))
                );
                assert_eq!(reference.to_string().parse(), Ok(reference));
            }
        }
        _ => {
            if let Err(reason) = docker_key(text, "registry.example.com") {
                assert_readable(&reason);
            }
        }
    }
}

fuzz_target!(|bytes: &[u8]| within(MEMORY_KIB, || check(bytes)));
