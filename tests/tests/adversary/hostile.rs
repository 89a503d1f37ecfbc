//! The hostile workload's image, and an enclave that runs it.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use enclave_tests::{Agent, Hypervisor, Programs, Workload};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

/// Longer than any command takes, under emulation on a busy machine.
const LIMIT: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(50);
const PROGRAM: &str = "hostile-workload";

pub(crate) static PROGRAMS: LazyLock<Programs> =
    LazyLock::new(|| Programs::from_environment().unwrap_or_else(|error| panic!("{error:#}")));

static ROOT: LazyLock<Workload> = LazyLock::new(|| build("root", "0:0"));
/// Root with namespaces of its own, and few processes.
static NAMESPACES: LazyLock<Workload> = LazyLock::new(|| build("namespaces", "0:0"));
static USER: LazyLock<Workload> = LazyLock::new(|| build("user", "1000:1000"));

/// Whom the workload runs as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum User {
    Root,
    Ordinary,
    /// Root, whose image allows user namespaces.
    Namespaces,
}

/// The folder of these tests' files.
pub(crate) fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("adversary")
        .join(name)
}

/// The manifest, which leaves every protection as it is by default. PID 1 of the workload's
/// namespace is the init's program, for the workload to attack, and reaps its orphans.
pub(crate) fn manifest(user: &str) -> String {
    format!(
        r#"
[enclave]
name = "hostile"
image = "oci:image"
memory_mib = 256

[workload]
user = "{user}"
init = true
restart = {{ policy = "on-failure", max = 20, backoff = "10ms..20ms" }}
stop_grace = "2s"

[network]
egress = ["peer.example:443", "*.wild.example:443"]
proxy = true
ingress = [{{ port = 8080, to = 8080 }}]
"#
    )
}

/// What is added to the manifest of a workload that may make namespaces.
const NAMESPACES_ALLOWED: &str = r#"
[confinement]
allow = ["user-namespaces"]
pids = 300
"#;

fn build(name: &str, user: &str) -> Workload {
    let build = || {
        let elevated = elevated(name);
        fs::copy(PROGRAMS.path(PROGRAM), &elevated)?;
        fs::set_permissions(&elevated, fs::Permissions::from_mode(0o4755))?;
        let text = if name == "namespaces" {
            manifest(user) + NAMESPACES_ALLOWED
        } else {
            manifest(user)
        };
        Workload::build_from(&PROGRAMS, &folder(name), PROGRAM, &[elevated], &text)
    };
    Workload::shared(&PROGRAMS, &folder(name), PROGRAM, build).unwrap()
}

/// The copy of the program that has the set-user-ID bit and belongs to root.
fn elevated(name: &str) -> PathBuf {
    folder(name).join("elevated")
}

/// An enclave whose workload is hostile.
pub(crate) struct Hostile {
    pub(crate) agent: Agent,
    address: SocketAddr,
    user: User,
}

/// A command that goes on until this is dropped.
pub(crate) struct Command {
    lines: tokio::io::Lines<BufReader<TcpStream>>,
}

impl Hostile {
    pub(crate) async fn start(hypervisor: Hypervisor, user: User) -> Self {
        Self::start_with(hypervisor, user, &[]).await
    }

    pub(crate) async fn start_with(hypervisor: Hypervisor, user: User, arguments: &[&str]) -> Self {
        let image = match user {
            User::Root => &ROOT,
            User::Ordinary => &USER,
            User::Namespaces => &NAMESPACES,
        };
        let mut agent = Agent::start(&PROGRAMS, image, hypervisor, "", arguments).unwrap();
        let address = agent.ready().await.unwrap();
        agent.line("listening").await.unwrap();
        Self {
            agent,
            address,
            user,
        }
    }

    /// The program with the set-user-ID bit, by its path in the enclave.
    pub(crate) fn elevated(&self) -> PathBuf {
        elevated(match self.user {
            User::Root => "root",
            User::Ordinary => "user",
            User::Namespaces => "namespaces",
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Begins a command.
    pub(crate) async fn begin(&self, command: &str) -> Command {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream
            .write_all(format!("{command}\n").as_bytes())
            .await
            .unwrap();
        Command {
            lines: BufReader::new(stream).lines(),
        }
    }

    /// What a command says in one line; empty if it says nothing.
    pub(crate) async fn ask(&self, command: &str) -> String {
        self.begin(command).await.line().await
    }

    /// Waits until the workload takes commands, after it was started again too.
    pub(crate) async fn until_it_listens(&self) {
        let listening = async {
            while self.ask("try status Pid").await.is_empty() {
                sleep(POLL).await;
            }
        };
        timeout(LIMIT, listening)
            .await
            .expect("the workload takes no commands");
    }

    /// Checks that the enclave works as it should: challenges are answered, the
    /// agent's status is that of a running enclave, and lines come out.
    pub(crate) async fn answers(&mut self, during: &str) {
        self.answers_challenges(during).await;
        let line = format!("say {during} {:?}", Instant::now());
        self.ask(&line).await;
        self.agent
            .line(&line)
            .await
            .unwrap_or_else(|error| panic!("{during}: {error:#}"));
    }

    /// The same for a workload that cannot be asked to print anything.
    pub(crate) async fn answers_challenges(&mut self, during: &str) {
        let asked = self.agent.command("attest", &["--nonce", "c0ffee"]).await;
        let document = asked.unwrap_or_else(|error| panic!("{during}: {error:#}"));
        assert!(document.len() > 1000, "{during}: {document:?}");
        let status = self.agent.status().await;
        let status = status.unwrap_or_else(|error| panic!("{during}: {error:#}"));
        assert_eq!(status["state"], "ready", "{during}: {status}");
    }
}

impl Command {
    /// The next line; empty if the command or the workload has ended.
    pub(crate) async fn line(&mut self) -> String {
        let line = timeout(LIMIT, self.lines.next_line()).await;
        line.expect("the command says nothing")
            .unwrap_or_default()
            .unwrap_or_default()
    }
}
