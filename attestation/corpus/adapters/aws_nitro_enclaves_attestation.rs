//! aws-nitro-enclaves-attestation (crates.io): adapter DOCUMENT ROOT TIME_S
//!
//! Registers and nonce are for the caller to compare, so they are not judged.

use aws_nitro_enclaves_attestation::NitroAdDoc;
use base64::Engine;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let document = std::fs::read(&words[0]).expect("a document");
    let pem = std::fs::read_to_string(&words[1]).expect("a root");
    let base64: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let root = base64::prelude::BASE64_STANDARD.decode(base64).expect("PEM");
    let time = words[2].parse().expect("seconds");
    if let Err(error) = NitroAdDoc::from_bytes(&document, &root, time) {
        println!("{error:?}");
        std::process::exit(1);
    }
}
