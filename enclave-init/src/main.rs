//! The init's entry: see the library's documentation.

use std::process::ExitCode;

/// Secrets pass through buffers that nobody else overwrites.
#[global_allocator]
static ALLOCATOR: enclave_init::Erasing = enclave_init::Erasing;

fn main() -> ExitCode {
    enclave_init::main(std::env::args_os().skip(1))
}
