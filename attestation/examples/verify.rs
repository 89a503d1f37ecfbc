//! Verifies a document against an image's measurements, and prints every check.
//!
//! `cargo run -p attestation --example verify -- DOCUMENT.cbor MEASUREMENTS.json`
//!
//! Without arguments it audits a document that AWS signed in 2024, at the document's
//! own time and for any image.

#![allow(clippy::print_stdout, reason = "an example's output")]

use std::error::Error;
use std::path::Path;

use attestation::{AuditTime, Nonce, Outcome, Policy, Report, Roots, Verifier, read_measurements};

/// Signed by AWS.
const DOCUMENT: &[u8] = include_bytes!("../corpus/aws/3a4a0301e6aa2839.cbor");

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let verifier = Verifier::new(Roots::aws());
    match arguments.as_slice() {
        [] => {
            let policy = Policy::builder().allow_any_image().build()?;
            let audit = verifier.audit(DOCUMENT, &policy, AuditTime::OfDocument);
            print(&audit.report);
            println!("{} was good then", audit.outcome?.module_id());
        }
        [document, measurements] => {
            let measurements = read_measurements(Path::new(measurements))?;
            let policy = Policy::builder().measurements(measurements).build()?;
            let document = std::fs::read(document)?;
            // A file may be a copy. Whoever challenges an enclave gives the nonce here.
            let verification = verifier.verify(&document, &policy, Nonce::Unchallenged);
            print(&verification.report);
            println!("{} is accepted", verification.outcome?.module_id());
        }
        _ => return Err("give a document and an image's measurements, or nothing".into()),
    }
    Ok(())
}

fn print(report: &Report) {
    for check in &report.checks {
        let mark = match check.outcome {
            Outcome::Passed => "ok",
            Outcome::Failed => "FAIL",
            Outcome::NotChecked => "-",
        };
        println!("{mark:<5} {}", check.rule);
    }
}
