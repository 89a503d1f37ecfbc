//! Prints the addresses of a host name.
//!
//! `cargo run -p name-resolver --example resolve -- example.com`

#![allow(clippy::print_stdout, reason = "an example's output")]

use std::error::Error;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let name = std::env::args().nth(1).ok_or("give a host name")?;
    let resolver = name_resolver::system()?;
    for address in resolver.lookup_ip(name).await?.iter() {
        println!("{address}");
    }
    Ok(())
}
