//! AWS's SDK for Rust, as an application uses it: `decrypt FILE KEY`.

use std::error::Error;
use std::process::ExitCode;

use aws_config::BehaviorVersion;
use aws_sdk_kms::Client;
use aws_sdk_kms::error::DisplayErrorContext;
use aws_sdk_kms::primitives::Blob;
use aws_smithy_types::base64;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match decrypt().await {
        Ok(plaintext) => {
            print!("{plaintext}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{}", DisplayErrorContext(&*error));
            ExitCode::FAILURE
        }
    }
}

async fn decrypt() -> Result<String, Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(file), Some(key)) = (arguments.next(), arguments.next()) else {
        return Err("usage: decrypt FILE KEY".into());
    };
    let config = aws_config::load_defaults(BehaviorVersion::latest()).await;
    let answer = Client::new(&config)
        .decrypt()
        .ciphertext_blob(Blob::new(std::fs::read(file)?))
        .key_id(key)
        .send()
        .await?;
    let plaintext = answer.plaintext().ok_or("no plaintext")?;
    Ok(base64::encode(plaintext))
}
