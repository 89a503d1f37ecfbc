//! The command ends as it would where nobody reads what it prints, and the service goes on.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and waits without a runtime"
)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use test_support::readers::{check_failure, check_readers, nobody};

const VECTOR: &str = "../attestation/corpus/aws/3a4a0301e6aa2839.cbor";
/// Longer than anything that is waited for takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn attest(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_attest"));
    command.args(arguments);
    command
}

#[test]
fn every_command_that_prints_ends_quietly_when_its_reader_goes_away() {
    let any = "--allow-any-image";
    for (arguments, code) in [
        (["--help"].as_slice(), 0),
        (&["--version"], 0),
        (&["verify", "--help"], 0),
        (&["inspect", VECTOR], 0),
        (&["inspect", VECTOR, "--json"], 0),
        (&["verify", VECTOR, any, "--time", "document"], 0),
        (&["verify", VECTOR, any, "--time", "document", "--json"], 0),
        (&["verify", VECTOR, any], 1),
        (&["verify", VECTOR, any, "--json"], 1),
        (&["roots"], 0),
        (&["roots", "--json"], 0),
        (&["roots", "--pem"], 0),
        (&["pcr", "--instance", "i-0123456789abcdef0"], 0),
        (&["pcr", "--instance", "i-0123456789abcdef0", "--json"], 0),
    ] {
        check_readers(&|| attest(arguments), code, 4);
    }
    for (arguments, code) in [
        (["verify", VECTOR].as_slice(), 2),
        (&["verify"], 2),
        (&["inspect", "/nonexistent"], 3),
        (&["fetch", "unix:/nonexistent", any], 3),
    ] {
        check_failure(&|| attest(arguments), code);
    }
}

/// An enclave's module that answers `fetch`.
struct Module(Child);

impl Drop for Module {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn fetch_ends_quietly_when_its_reader_goes_away() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (socket, root) = (path("nsm"), path("root.pem"));
    // Nobody reads where it says that it listens, either.
    let simulate = attest(&["simulate", "--socket", &socket, "--root", &root])
        .stderr(nobody())
        .stdin(Stdio::null())
        .spawn();
    let _module = Module(simulate.unwrap());
    let start = Instant::now();
    while UnixStream::connect(&socket).is_err() {
        assert!(start.elapsed() < PATIENCE);
        sleep(Duration::from_millis(20));
    }
    let endpoint = format!("nsm:{socket}");
    let fetch = ["fetch", &endpoint, "--root", &root, "--allow-any-image"];
    let (stdout, stderr) = (nobody(), Stdio::piped());
    let mut command = attest(&fetch);
    let output = command.arg("--allow-debug").stdout(stdout).stderr(stderr);
    let output = output.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[test]
fn serve_goes_on_when_nobody_reads_its_log() {
    let folder = tempfile::tempdir().unwrap();
    let policies = folder.path().join("policies");
    std::fs::create_dir(&policies).unwrap();
    std::fs::write(policies.join("any.toml"), "allow_any_image = true").unwrap();
    // The address is on standard output, which nobody reads.
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = port.local_addr().unwrap().to_string();
    drop(port);
    let mut command = attest(&["serve", "--listen", &address]);
    let server = command
        .args(["--threads", "1", "--policies"])
        .arg(&policies)
        .arg("--data")
        .arg(folder.path().join("data"))
        // So that each request is logged, and each connection.
        .env("RUST_LOG", "trace")
        .stdin(Stdio::null())
        .stdout(nobody())
        .stderr(nobody())
        .spawn();
    let mut server = Module(server.unwrap());
    let start = Instant::now();
    for _ in 0..3 {
        let answer = loop {
            assert_eq!(server.0.try_wait().unwrap(), None, "it has ended");
            assert!(start.elapsed() < PATIENCE);
            if let Ok(mut stream) = TcpStream::connect(&address) {
                let request =
                    b"GET /v1/policies HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
                stream.write_all(request).unwrap();
                let mut answer = String::new();
                stream.read_to_string(&mut answer).unwrap();
                break answer;
            }
            sleep(Duration::from_millis(20));
        };
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}
