//! What the benchmarks of the service share: an enclave in software, the service on a core
//! of its own, and the clients' core.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use measurements::{Measurements, Pcr};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use nsm::{Request, Response};
use serde_bytes::ByteBuf;
use serde_json::Value;
use software_nsm::{Identity, SoftwareNsm, TestRoot};

pub(crate) const NONCE: &[u8] = b"a nonce of 32 bytes: 0123456789a";
/// The policy that accepts the enclave.
pub(crate) const POLICY: &str = "payments";

/// An enclave in software, and a folder with what the service needs to accept it.
pub(crate) struct Enclave {
    pub(crate) folder: tempfile::TempDir,
    module: Mutex<SoftwareNsm>,
}

impl Enclave {
    /// The root is in `root.pem`, the policy in `policies/payments.toml`.
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = TestRoot::generate().unwrap();
        fs::write(folder.path().join("root.pem"), root.certificate_pem()).unwrap();
        let measurements = Measurements {
            pcr0: Pcr::new([1; 48]),
            pcr1: Pcr::new([2; 48]),
            pcr2: Pcr::new([3; 48]),
            pcr8: None,
        };
        let policy = format!(
            "nonce = \"required\"\nmax_age = \"2h\"\n[[images]]\nname = \"{POLICY}\"\n[images.Measurements]\nPCR0 = \"{}\"\nPCR1 = \"{}\"\nPCR2 = \"{}\"\n",
            measurements.pcr0, measurements.pcr1, measurements.pcr2
        );
        let policies = folder.path().join("policies");
        fs::create_dir(&policies).unwrap();
        fs::write(policies.join(POLICY).with_extension("toml"), policy).unwrap();
        let identity = Identity {
            instance_id: "i-0123456789abcdef0".into(),
            enclave_id: "enc0123456789abcdef".into(),
            measurements: Some(measurements),
        };
        Self {
            folder,
            module: SoftwareNsm::new(identity, root).unwrap().into(),
        }
    }

    pub(crate) fn attest(&self, nonce: &[u8]) -> Vec<u8> {
        let request = Request::Attestation {
            user_data: None,
            nonce: Some(ByteBuf::from(nonce.to_vec())),
            public_key: None,
        };
        match self.module.lock().unwrap().answer(request) {
            Response::Attestation { document } => document,
            other => panic!("{other:?}"),
        }
    }
}

/// `attest serve`, until it is dropped.
pub(crate) struct Server {
    pub(crate) child: Child,
    pub(crate) address: SocketAddr,
}

impl Server {
    /// On one core, with the limits and the log that it has unless these options say
    /// otherwise.
    pub(crate) fn start(enclave: &Enclave, core: usize, options: &[&str]) -> Self {
        let path = |name: &str| enclave.folder.path().join(name);
        let mut child = Command::new("taskset")
            .args(["--cpu-list", &core.to_string()])
            .arg(env!("CARGO_BIN_EXE_attest"))
            .args(["serve", "--listen", "127.0.0.1:0", "--threads", "1"])
            .args(options)
            .arg("--policies")
            .arg(path("policies"))
            .arg("--data")
            .arg(path("data"))
            .arg("--root")
            .arg(path("root.pem"))
            .env_remove("RUST_LOG")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("taskset, of util-linux");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address = line.split("http://").nth(1).unwrap();
        let address = address.split(',').next().unwrap();
        Self {
            address: address.parse().unwrap(),
            child,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn post(path: &str, body: &Value) -> Vec<u8> {
    let body = body.to_string();
    format!(
        "POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// The first two cores that this process may use.
pub(crate) fn two_cores() -> [usize; 2] {
    let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap();
    let mut cores = (0..CpuSet::count()).filter(|core| allowed.is_set(*core).unwrap());
    let mut next = || cores.next().expect("the benchmark needs two cores");
    [next(), next()]
}

/// Keeps this thread, and those that it starts, on one core.
pub(crate) fn pin(core: usize) {
    let mut set = CpuSet::new();
    set.set(core).unwrap();
    sched_setaffinity(Pid::from_raw(0), &set).unwrap();
}
