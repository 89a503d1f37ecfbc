//! `attest simulate`: its socket, its root, and how it ends.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread::park_timeout;
use std::time::{Duration, Instant};

/// Longer than a start takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

fn command(folder: &Path, socket: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_attest"));
    command
        .args(["simulate", "--socket", socket, "--root", "root.pem"])
        .current_dir(folder)
        .stderr(Stdio::piped());
    command
}

/// A simulation that has begun to listen.
fn start(folder: &Path) -> Child {
    let child = command(folder, "nsm").spawn().unwrap();
    let start = Instant::now();
    while UnixStream::connect(folder.join("nsm")).is_err() {
        assert!(start.elapsed() < PATIENCE, "it does not listen");
        park_timeout(Duration::from_millis(10));
    }
    child
}

fn terminate(mut child: Child) {
    let id = child.id().to_string();
    assert!(Command::new("kill").arg(id).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

fn refused(output: &Output, message: &str) {
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{error}");
    assert!(error.contains(message), "{error}");
}

#[test]
fn simulate_leaves_the_root_of_another_alone_and_no_socket_behind() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let first = start(folder);
    let root = std::fs::read_to_string(folder.join("root.pem")).unwrap();
    let second = command(folder, "nsm").output().unwrap();
    refused(&second, "nsm is there already");
    let after = std::fs::read_to_string(folder.join("root.pem")).unwrap();
    assert_eq!(after, root);
    terminate(first);
    assert!(!folder.join("nsm").exists());
    terminate(start(folder));
}

#[test]
fn simulate_that_cannot_listen_ends_with_4() {
    let folder = tempfile::tempdir().unwrap();
    let output = command(folder.path(), "nowhere/nsm").output().unwrap();
    refused(&output, "cannot listen on nowhere/nsm");
}
