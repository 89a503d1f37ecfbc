//! The init's entry: see the library's documentation.

use std::process::ExitCode;

fn main() -> ExitCode {
    enclave_init::main(std::env::args_os().skip(1))
}
