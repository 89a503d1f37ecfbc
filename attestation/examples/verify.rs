//! Verifies a document against an image's measurements, and prints every check.
//!
//! `cargo run -p attestation --example verify -- DOCUMENT.cbor MEASUREMENTS.json`
//!
//! Without arguments it verifies a document that AWS signed in 2024, at the document's
//! own time and for any image.

#![allow(clippy::print_stdout, reason = "an example's output")]

use std::error::Error;
use std::path::Path;

use attestation::{Outcome, Policy, Roots, Time, Verifier, read_measurements};

/// Signed by AWS.
const DOCUMENT: &[u8] = include_bytes!("../tests/vectors/3a4a0301e6aa2839.cbor");

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let (document, policy, time) = match arguments.as_slice() {
        [] => {
            let policy = Policy::builder().allow_any_image().build()?;
            (DOCUMENT.to_vec(), policy, Time::OfDocument)
        }
        [document, measurements] => {
            let measurements = read_measurements(Path::new(measurements))?;
            let policy = Policy::builder().measurements(measurements).build()?;
            (std::fs::read(document)?, policy, Time::Now)
        }
        _ => return Err("give a document and an image's measurements, or nothing".into()),
    };

    let verifier = Verifier::new(Roots::aws());
    let verification = verifier.verify(&document, &policy, time);
    for check in &verification.report.checks {
        let mark = match check.outcome {
            Outcome::Passed => "ok",
            Outcome::Failed => "FAIL",
            Outcome::NotChecked => "-",
        };
        println!("{mark:<5} {}", check.rule);
    }
    let accepted = verification.outcome?;
    println!("{} is accepted", accepted.module_id());
    Ok(())
}
