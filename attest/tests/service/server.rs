//! The program, its folder, and what tests ask of it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::enclave::{Enclave, MEASUREMENTS};
use crate::http::{Reply, request};

/// Longer than anything that is waited for takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const JSON: (&str, &str) = ("Content-Type", "application/json");

/// A folder with policies, and an enclave whose root is pinned.
pub(crate) struct World {
    pub(crate) folder: TempDir,
    pub(crate) enclave: Enclave,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(Enclave::new(Some(MEASUREMENTS)))
    }

    pub(crate) fn with(enclave: Enclave) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("policies/images")).unwrap();
        fs::write(folder.path().join("root.pem"), &enclave.root_pem).unwrap();
        let world = Self { folder, enclave };
        let [pcr0, pcr1, pcr2] = [1_u8, 2, 3].map(|byte| hex::encode([byte; 48]));
        let measurements = json!({
            "Measurements": { "HashAlgorithm": "Sha384 { ... }", "PCR0": pcr0, "PCR1": pcr1, "PCR2": pcr2 }
        });
        world.write("images/payments.json", &measurements.to_string());
        world.write(
            "payments.toml",
            "nonce = \"required\"\n[[images]]\nname = \"payments 1.4\"\nfile = \"images/payments.json\"\n",
        );
        world.write("any.json", r#"{"allow_any_image":true}"#);
        world
    }

    /// Writes a file below the folder of policies.
    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.policies().join(name), text).unwrap();
    }

    pub(crate) fn policies(&self) -> PathBuf {
        self.folder.path().join("policies")
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The program with these options, and its usual ones where they say nothing.
    pub(crate) fn command(&self, options: &[&str]) -> Command {
        let path = |name| self.folder.path().join(name).display().to_string();
        let any_port = || "127.0.0.1:0".to_owned();
        let usual = [
            ("--listen", any_port()),
            ("--metrics-listen", any_port()),
            ("--log", "json".to_owned()),
            ("--rate-limit", "0".to_owned()),
            ("--policies", path("policies")),
            ("--data", path("data")),
            ("--root", path("root.pem")),
        ];
        let mut command = Command::new(env!("CARGO_BIN_EXE_attest"));
        command.arg("serve");
        for (name, value) in usual {
            if !options.contains(&name) {
                command.arg(name).arg(value);
            }
        }
        command
            .args(options)
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        command
    }

    pub(crate) fn start(&self, options: &[&str]) -> Server {
        let log = self.folder.path().join("log");
        let file = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .unwrap();
        let mut child = self.command(options).stderr(file).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let addresses: Vec<SocketAddr> = line
            .split("http://")
            .skip(1)
            .map(|rest| {
                let end = rest.find([',', '\n']).unwrap();
                rest[..end].parse().unwrap()
            })
            .collect();
        let [address, metrics] = addresses[..] else {
            panic!(
                "it did not start: {line:?}, {}",
                fs::read_to_string(&log).unwrap()
            );
        };
        Server {
            child,
            address,
            metrics,
            line,
            log,
        }
    }
}

pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    pub(crate) metrics: SocketAddr,
    pub(crate) line: String,
    log: PathBuf,
}

impl Server {
    pub(crate) fn get(&self, path: &str) -> Reply {
        request(self.address, "GET", path, &[], &[])
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Reply {
        let body = body.to_string();
        request(self.address, "POST", path, &[JSON], body.as_bytes())
    }

    pub(crate) fn challenge(&self, body: &Value) -> Vec<u8> {
        let reply = self.post("/v1/challenges", body);
        assert_eq!(reply.status, 200, "{reply:?}");
        hex::decode(reply.json()["challenge"].as_str().unwrap()).unwrap()
    }

    /// Verifies under the policy `payments` for a challenge.
    pub(crate) fn verify(&self, document: &[u8], challenge: &[u8]) -> Reply {
        self.post("/v1/verify", &verify_body(document, challenge))
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// A sample of the metrics, by its name and labels.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let reply = request(self.metrics, "GET", "/metrics", &[], &[]);
        assert_eq!(reply.status, 200, "{reply:?}");
        let line = reply
            .body
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in {}", reply.body))
            .parse()
            .unwrap()
    }

    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args(["-s", name, &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(status.success());
    }

    pub(crate) fn wait(mut self) -> ExitStatus {
        eventually("it does not end", || self.child.try_wait().unwrap())
    }

    /// As a crash or a power failure would.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        assert_eq!(self.child.wait().unwrap().signal(), Some(9));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn verify_body(document: &[u8], challenge: &[u8]) -> Value {
    json!({
        "document": STANDARD.encode(document),
        "policy": "payments",
        "challenge": hex::encode(challenge),
    })
}

/// Asks again and again until there is an answer.
pub(crate) fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < PATIENCE, "{what}");
        thread::park_timeout(Duration::from_millis(20));
    }
}

pub(crate) fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}
