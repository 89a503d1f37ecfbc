//! Gets an image into a folder, and says where it is.
//!
//! `cargo run -p image-fetch --example fetch -- https://HOST/PATH FOLDER SHA256`, or, of a
//! registry, `… -- oci://REGISTRY/REPOSITORY@sha256:DIGEST FOLDER`. Images in S3 need
//! `--features aws`.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "an example's output"
)]

use std::error::Error;

use image_fetch::{Cache, ImageConfig, fetch};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(source), Some(folder)) = (arguments.next(), arguments.next()) else {
        return Err("give a source, a folder and the SHA-256 of the image".into());
    };
    let image = ImageConfig {
        location: source.parse()?,
        sha256: arguments.next().map(|text| text.parse()).transpose()?,
        size: None,
        pcr8: None,
    };
    let cache = Cache::new(Some(folder.into()));
    let path = fetch(&image, None, &cache, &|bytes, total| match total {
        Some(total) => eprintln!("{bytes} of {total} bytes"),
        None => eprintln!("{bytes} bytes"),
    })
    .await?;
    println!("{}", path.display());
    Ok(())
}
