//! `attest`: look into an attestation document, verify it, seal a secret to an enclave, or
//! stand in for the NSM.
//!
//! Exit codes: 0 accepted, 1 rejected, 2 usage or policy error, 3 unreadable input,
//! 4 a service could not listen or failed, or an output could not be written.

#![forbid(unsafe_code)]

mod demands;
mod failure;
mod fetch;
mod input;
mod inspect;
mod pcr;
mod result;
mod roots;
mod runtime;
mod seal;
mod serve;
mod simulate;
mod table;
mod text;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use command_output::errln;

use crate::failure::{FAILED, Failure};

/// Look into attestation documents of AWS Nitro Enclaves, and verify them.
///
/// Exit codes: 0 accepted, 1 rejected, 2 usage or policy error, 3 unreadable input,
/// 4 a service could not listen or failed, or an output could not be written.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show everything in a document and its certificates. Nothing is verified.
    Inspect(inspect::Arguments),
    /// Verify a document against a pinned root and a policy.
    Verify(verify::Arguments),
    /// Challenge a live enclave with a new nonce, and verify its document.
    Fetch(fetch::Arguments),
    /// Verify a live enclave, and seal a secret that only this boot of it can open.
    Seal(seal::Arguments),
    /// Verify a signed result (EAR) of a verifier that you trust.
    Result(result::Arguments),
    /// Compute the registers of a parent's role, of its id, and of an image's signer.
    Pcr(pcr::Arguments),
    /// Serve challenges, verification and signed results over HTTP.
    Serve(Box<serve::Arguments>),
    /// Show the roots of AWS that are known.
    Roots(roots::Arguments),
    /// Serve the software NSM on a Unix socket, for tests.
    Simulate(simulate::Arguments),
}

fn main() -> ExitCode {
    let cli: Cli = match command_output::parse("attest", FAILED) {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    let result = match cli.command {
        Command::Inspect(arguments) => inspect::run(&arguments),
        Command::Verify(arguments) => verify::run(&arguments),
        Command::Fetch(arguments) => fetch::run(&arguments),
        Command::Seal(arguments) => seal::run(&arguments),
        Command::Result(arguments) => result::run(&arguments),
        Command::Pcr(arguments) => pcr::run(&arguments),
        Command::Serve(arguments) => serve::run(*arguments),
        Command::Roots(arguments) => roots::run(&arguments),
        Command::Simulate(arguments) => simulate::run(&arguments),
    };
    let code = result.unwrap_or_else(|Failure { code, error }| {
        errln!("attest: {error:#}");
        ExitCode::from(code)
    });
    command_output::end("attest", code, FAILED)
}
