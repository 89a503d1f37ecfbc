//! The program ends as it would where nobody reads what it prints.

use std::process::Command;

use test_support::readers::{check_failure, check_readers};

fn program(argument: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_enclavectl"));
    command.arg(argument);
    command
}

/// Where there is no control plane.
fn doctor(arguments: &[&str]) -> Command {
    let mut command = program("doctor");
    command
        .args(arguments)
        .env("AWS_ENDPOINT_URL", "http://127.0.0.1:1");
    for (name, value) in [
        ("AWS_ACCESS_KEY_ID", "none"),
        ("AWS_SECRET_ACCESS_KEY", "none"),
        ("AWS_REGION", "eu-west-1"),
        ("AWS_MAX_ATTEMPTS", "1"),
    ] {
        command.env(name, value);
    }
    command
}

#[test]
fn doctor_ends_quietly_when_its_reader_goes_away() {
    check_readers(&|| doctor(&[]), 3, 1);
    check_readers(&|| doctor(&["--json"]), 3, 1);
}

#[test]
fn help_ends_quietly_when_its_reader_goes_away() {
    check_readers(&|| program("--help"), 0, 1);
    check_failure(&|| program("fly"), 2);
}
