//! Challenges a live enclave, and prints who answered.
//!
//! `cargo run -p attestation-client --example challenge -- https://HOST/PATH PCR0`

#![allow(clippy::print_stdout, reason = "an example's output")]

use std::error::Error;

use attestation::{Policy, Roots, Verifier};
use attestation_client::{Client, Endpoint};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(endpoint), Some(pcr0)) = (arguments.next(), arguments.next()) else {
        return Err("give an endpoint and the PCR0 of the image".into());
    };
    let endpoint: Endpoint = endpoint.parse()?;
    let policy = Policy::builder().pcr(0, pcr0.parse()?).build()?;

    let client = Client::new(Verifier::new(Roots::aws()));
    let attestation = client.attest(&endpoint, &policy).await?;
    let claims = attestation.outcome?;
    println!("{} runs the image", claims.module_id());
    Ok(())
}
