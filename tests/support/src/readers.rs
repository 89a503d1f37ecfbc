//! Commands whose output nobody reads, or nothing can take.

use std::fs::OpenOptions;
use std::io::pipe;
use std::process::{Command, Output, Stdio};

/// What a program says that did not expect it.
const UNEXPECTED: [&str; 3] = ["panicked", "Broken pipe", "os error 32"];

/// Checks that a command, which prints and ends with this code, ends with it too where its
/// reader has gone away, without a word about that; and with the code `failed` and a reason
/// where the disk is full.
///
/// # Panics
///
/// If it does not.
pub fn check_readers(command: &dyn Fn() -> Command, code: i32, failed: i32) {
    let run = |command: &mut Command| command.stdin(Stdio::null()).output().expect("it starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();

    let whole = run(&mut command());
    let shown = format!("{:?}: {whole:?}", command());
    assert_eq!(whole.status.code(), Some(code), "{shown}");
    assert!(!whole.stdout.is_empty(), "{shown}");

    let gone = run(command().stdout(nobody()));
    assert_eq!(gone.status.code(), Some(code), "{shown}: {gone:?}");
    assert_eq!(text(&gone.stderr), text(&whole.stderr), "{shown}");

    let silent = run(command().stderr(nobody()));
    assert_eq!(silent.status.code(), Some(code), "{shown}: {silent:?}");
    // Some say what time it is.
    let lines = |output: &Output| text(&output.stdout).lines().count();
    assert_eq!(lines(&silent), lines(&whole), "{shown}");

    let full = OpenOptions::new().write(true).open("/dev/full");
    let full: Output = run(command().stdout(full.expect("/dev/full")));
    let error = text(&full.stderr);
    assert_eq!(full.status.code(), Some(failed), "{shown}: {full:?}");
    assert!(error.contains("standard output"), "{shown}: {error}");
    assert!(
        error.contains("No space left on device"),
        "{shown}: {error}"
    );
    for word in UNEXPECTED {
        assert!(!error.contains(word), "{shown}: {error}");
    }
}

/// Checks that a command, which fails with this code, does so where nobody reads why.
///
/// # Panics
///
/// If it does not.
pub fn check_failure(command: &dyn Fn() -> Command, code: i32) {
    for (stdout, stderr) in [(Stdio::null(), nobody()), (nobody(), nobody())] {
        let mut command = command();
        command.stdin(Stdio::null()).stdout(stdout).stderr(stderr);
        let status = command.status().expect("it starts");
        assert_eq!(status.code(), Some(code), "{command:?}");
    }
}

/// A pipe whose reader has gone away.
///
/// # Panics
///
/// If there is no room for one.
pub fn nobody() -> Stdio {
    let (_, writer) = pipe().expect("a pipe");
    writer.into()
}
