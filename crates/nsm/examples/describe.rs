//! Says what a security module says of itself, and its registers.
//!
//! `cargo run -p nsm --example describe` inside an enclave, or with the socket of a module
//! in software: `… -- SOCKET`, which `attest simulate --socket SOCKET …` serves.

#![allow(clippy::print_stdout, reason = "an example's output")]

use std::path::Path;

use nsm::{Nsm, NsmError};

fn main() -> Result<(), NsmError> {
    let mut module = match std::env::args().nth(1) {
        Some(socket) => Nsm::socket(Path::new(&socket))?,
        None => Nsm::device()?,
    };
    let description = module.describe()?;
    let (major, minor, patch) = description.version;
    println!("{} {major}.{minor}.{patch}", description.module_id);
    for index in 0..description.max_pcrs {
        let (value, locked) = module.describe_pcr(index)?;
        let lock = if locked { "locked" } else { "open" };
        println!("PCR{index:<2} {lock:<6} {value}");
    }
    Ok(())
}
