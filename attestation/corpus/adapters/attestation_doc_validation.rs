//! attestation-doc-validation (crates.io): adapter DOCUMENT [--nonce HEX] [--pcr N=HEX]…
//!
//! Its root is AWS's, its clock the system's.

use attestation_doc_validation::{
    PCRProvider, validate_and_parse_attestation_doc, validate_expected_nonce,
    validate_expected_pcrs,
};
use base64::Engine;

#[derive(Default)]
struct Expected([Option<String>; 9]);

impl PCRProvider for Expected {
    fn pcr_0(&self) -> Option<&str> {
        self.0[0].as_deref()
    }
    fn pcr_1(&self) -> Option<&str> {
        self.0[1].as_deref()
    }
    fn pcr_2(&self) -> Option<&str> {
        self.0[2].as_deref()
    }
    fn pcr_8(&self) -> Option<&str> {
        self.0[8].as_deref()
    }
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let document = std::fs::read(&words[0]).expect("a document");
    let mut expected = Expected::default();
    let mut nonce = None;
    for option in words[1..].chunks(2) {
        match option[0].as_str() {
            "--nonce" => {
                let bytes = hex::decode(&option[1]).expect("hexadecimal");
                nonce = Some(base64::prelude::BASE64_STANDARD.encode(bytes));
            }
            _ => {
                let (index, value) = option[1].split_once('=').expect("N=HEX");
                let index: usize = index.parse().expect("a number");
                expected.0[index] = Some(value.to_owned());
            }
        }
    }
    let verify = || -> Result<(), String> {
        let parsed = validate_and_parse_attestation_doc(&document).map_err(|e| e.to_string())?;
        if let Some(nonce) = &nonce {
            validate_expected_nonce(&parsed, nonce).map_err(|e| e.to_string())?;
        }
        if expected.0.iter().any(Option::is_some) {
            validate_expected_pcrs(&parsed, &expected).map_err(|e| e.to_string())?;
        }
        Ok(())
    };
    if let Err(error) = verify() {
        println!("{error}");
        std::process::exit(1);
    }
}
