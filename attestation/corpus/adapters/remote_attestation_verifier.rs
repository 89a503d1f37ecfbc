//! remote-attestation-verifier (crates.io): adapter DOCUMENT ROOT TIME_S [--pcr N=HEX]…
//!
//! Its nonce is not the document's but 20 zeros, as its own tests expect.

use base64::Engine;
use remote_attestation_verifier::{parse_document, parse_payload, verify};

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let document = std::fs::read(&words[0]).expect("a document");
    let pem = std::fs::read_to_string(&words[1]).expect("a root");
    let base64: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let root = base64::prelude::BASE64_STANDARD.decode(base64).expect("PEM");
    let time = words[2].parse().expect("seconds");
    // A register of zeros is not compared.
    let mut pcrs = vec![vec![0; 48]; 3];
    for option in words[3..].chunks(2) {
        let (index, value) = option[1].split_once('=').expect("N=HEX");
        let index: usize = index.parse().expect("a number");
        pcrs[index] = hex::decode(value).expect("hexadecimal");
    }
    let nonce = vec![0; 20];
    let checked = || -> Result<(), String> {
        let document = parse_document(&document).map_err(|e| e.to_string())?;
        let payload = parse_payload(&document.payload).map_err(|e| e.to_string())?;
        verify(document, payload, nonce, pcrs, Some(root), time).map_err(|e| e.to_string())
    };
    if let Err(error) = checked() {
        println!("{error}");
        std::process::exit(1);
    }
}
