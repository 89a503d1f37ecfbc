//! nsm-nitro-enclave-utils (crates.io): adapter DOCUMENT ROOT TIME_MS
//!
//! Registers and nonce are for the caller to compare, so they are not judged.

use base64::Engine;
use nsm_nitro_enclave_utils::api::nsm::AttestationDoc;
use nsm_nitro_enclave_utils::time::Time;
use nsm_nitro_enclave_utils::verify::AttestationDocVerifierExt;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let document = std::fs::read(&words[0]).expect("a document");
    let pem = std::fs::read_to_string(&words[1]).expect("a root");
    let base64: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let root = base64::prelude::BASE64_STANDARD.decode(base64).expect("PEM");
    let milliseconds: u64 = words[2].parse().expect("milliseconds");
    let time = Time::new(Box::new(move || milliseconds));
    if let Err(error) = AttestationDoc::from_cose(&document, &root, time) {
        println!("{error:?}");
        std::process::exit(1);
    }
}
