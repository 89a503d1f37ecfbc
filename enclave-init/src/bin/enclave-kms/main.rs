//! `enclave-kms`: KMS for scripts, by the init's local API.
//!
//! It takes the arguments of AWS's `kmstool_enclave_cli` and prints what that prints, so
//! that scripts which call it go on working. What those arguments say of credentials,
//! region and proxy is the init's business here, and is not used.

#![forbid(unsafe_code)]

mod arguments;
mod call;

use std::io::{self, Write};
use std::process::ExitCode;

use arguments::Arguments;

/// Plaintexts pass through.
#[global_allocator]
static ALLOCATOR: enclave_init::Erasing = enclave_init::Erasing;

/// The call was refused, or could not be made.
const EXIT_FAILED: u8 = 1;
/// The arguments are wrong.
const EXIT_USAGE: u8 = 2;
const USAGE: &str = "\
usage: enclave-kms decrypt --ciphertext BASE64 [--key-id KEY] [--encryption-algorithm ALGORITHM] [--encryption-context JSON]
       enclave-kms genkey --key-id KEY --key-spec AES-256|AES-128 [--encryption-context JSON]
       enclave-kms genrandom --length BYTES
--region, --proxy-port and --aws-access-key-id, --aws-secret-access-key, --aws-session-token are accepted and not used: the enclave has its own
";

fn main() -> ExitCode {
    let arguments = match Arguments::parse(std::env::args_os().skip(1)) {
        Ok(Some(arguments)) => arguments,
        Ok(None) => return say(&mut io::stdout(), USAGE, ExitCode::SUCCESS),
        Err(reason) => {
            let text = format!("enclave-kms: {reason}\n{USAGE}");
            return say(&mut io::stderr(), &text, EXIT_USAGE.into());
        }
    };
    match call::make(&arguments) {
        Ok(text) => say(&mut io::stdout(), &text, ExitCode::SUCCESS),
        Err(reason) => {
            let text = format!("enclave-kms: {reason}\n");
            say(&mut io::stderr(), &text, EXIT_FAILED.into())
        }
    }
}

/// Writes all of it, and ends with this code if that works, or if nobody reads it.
fn say(to: &mut dyn Write, text: &str, code: ExitCode) -> ExitCode {
    match to.write_all(text.as_bytes()).and_then(|()| to.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => EXIT_FAILED.into(),
        _ => code,
    }
}
