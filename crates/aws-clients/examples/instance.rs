//! Says which region and which credentials a program on this host would use.
//!
//! `cargo run -p aws-clients --features aws --example instance`

#![allow(clippy::print_stdout, reason = "an example's output")]

use std::error::Error;

use aws_clients::{Client, region};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    println!("region: {}", region().await.as_deref().unwrap_or("none"));
    let client = Client::new(None).await?;
    match client.check_credentials().await {
        Ok(()) => println!("credentials: found"),
        Err(reason) => println!("credentials: {reason}"),
    }
    Ok(())
}
