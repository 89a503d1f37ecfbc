//! Emulators of CloudWatch Logs, from the tests' Python environment.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

/// Prints the messages of a log stream.
const READ_LOG_STREAM: &str = include_str!("../python/read_log_stream.py");
/// How long an emulator may take to listen, and a reading to end.
const LIMIT: Duration = Duration::from_secs(60);

/// Which emulator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `ministack`.
    Ministack,
    /// `moto_server`.
    Moto,
}

/// A running emulator; it ends with this.
#[derive(Debug)]
pub struct Emulator {
    python: PathBuf,
    endpoint: String,
    _child: Child,
}

impl Emulator {
    /// Starts one on loopback. Its Python is what `cargo xtask test` has made.
    pub async fn start(kind: Kind) -> anyhow::Result<Self> {
        let python = std::env::var_os("ENCLAVE_TEST_PYTHON")
            .map(PathBuf::from)
            .context("ENCLAVE_TEST_PYTHON is not set: run `cargo xtask test`")?;
        let programs = python.parent().context("the interpreter's folder")?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut command = match kind {
            Kind::Ministack => Command::new(programs.join("ministack")),
            Kind::Moto => {
                let mut command = Command::new(programs.join("moto_server"));
                command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
                command
            }
        };
        let child = command
            .env("BIND_HOST", "127.0.0.1")
            .env("GATEWAY_PORT", port.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start the emulator")?;
        let emulator = Self {
            python,
            endpoint: format!("http://127.0.0.1:{port}"),
            _child: child,
        };
        let listening = async {
            while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        if timeout(LIMIT, listening).await.is_err() {
            bail!("the emulator does not listen");
        }
        Ok(emulator)
    }

    /// What a client's environment must say.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ENDPOINT_URL", self.endpoint.clone()),
            ("AWS_REGION", "us-west-2".to_owned()),
            ("AWS_DEFAULT_REGION", "us-west-2".to_owned()),
            ("AWS_ACCESS_KEY_ID", "test".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "test".to_owned()),
        ]
    }

    /// The messages of a log stream, as another client reads them.
    pub async fn messages(&self, group: &str, stream: &str) -> anyhow::Result<Vec<String>> {
        let output = Command::new(&self.python)
            .args(["-c", READ_LOG_STREAM, group, stream])
            .envs(self.environment())
            .kill_on_drop(true)
            .output();
        let output = timeout(LIMIT, output).await??;
        ensure!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let text = String::from_utf8(output.stdout)?;
        text.lines()
            .map(|line| {
                let (_, message): (i64, String) = serde_json::from_str(line)?;
                Ok(message)
            })
            .collect()
    }
}
