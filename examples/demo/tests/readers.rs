//! The program ends as it would where nobody reads what it prints.

use std::process::Command;

use test_support::readers::{check_failure, check_readers};

fn program(argument: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_demo"));
    command.arg(argument);
    command
}

#[test]
fn help_ends_quietly_when_its_reader_goes_away() {
    check_readers(&|| program("--help"), 0, 1);
    check_failure(&|| program("fly"), 2);
}
