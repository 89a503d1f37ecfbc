//! nitro_attest (crates.io): adapter DOCUMENT TIME_MS
//!
//! Its root is AWS's. Registers and nonce are for the caller to compare, so they are not judged.

use nitro_attest::UnparsedAttestationDoc;
use time::OffsetDateTime;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let document = std::fs::read(&words[0]).expect("a document");
    let milliseconds: i128 = words[1].parse().expect("milliseconds");
    let now = OffsetDateTime::from_unix_timestamp_nanos(milliseconds * 1_000_000).expect("a time");
    let document = UnparsedAttestationDoc::from(document.as_slice());
    if let Err(error) = document.parse_and_verify(now) {
        println!("{error}");
        std::process::exit(1);
    }
}
