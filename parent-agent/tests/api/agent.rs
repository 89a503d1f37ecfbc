//! A running `parent-agent run`, and the other side of its sockets.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use link::BootId;
use link::control::{FromAgent, FromInit};
use link::frame::{MAX_CONTROL, Reader, Writer};
use link::{Channel, Endpoint, Listener, Stream, Text, hello};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::io::{ReadHalf, WriteHalf};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::time::{sleep, timeout};

use crate::image::Builder;

/// Longer than anything may take; only a failing test waits so long.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(5);

/// The program, with its state in `folder`.
pub(crate) fn command(folder: &Path, subcommand: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_parent-agent"));
    command
        .arg(subcommand)
        .arg("--state-dir")
        .arg(folder.join("s"))
        .env("TMPDIR", folder)
        .env("XDG_STATE_HOME", folder.join("logs"))
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// Runs the program to its end.
pub(crate) async fn output(mut command: Command) -> Output {
    timeout(LIMIT, command.output()).await.unwrap().unwrap()
}

/// The one line that a failing program prints.
pub(crate) fn error_line(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 1, "not one line: {text}");
    assert!(lines[0].starts_with("error: "), "{text}");
    lines[0].to_owned()
}

/// A `run` in progress.
pub(crate) struct Agent {
    pub(crate) folder: TempDir,
    pub(crate) child: Child,
    directory: PathBuf,
    events: Lines<BufReader<ChildStdout>>,
    stderr: ChildStderr,
}

impl Agent {
    /// Runs an image that needs no network.
    pub(crate) async fn start(arguments: &[&str]) -> Self {
        Self::run(Builder::new(&[], &[]), arguments).await
    }

    /// Runs the image and waits until its init waits.
    pub(crate) async fn run(image: Builder, arguments: &[&str]) -> Self {
        let agent = Self::spawn(image, arguments);
        agent.until_init_waits().await;
        agent
    }

    /// Runs the image without waiting for anything.
    pub(crate) fn spawn(image: Builder, arguments: &[&str]) -> Self {
        Self::spawn_in(tempfile::tempdir().unwrap(), image, arguments)
    }

    pub(crate) fn spawn_in(folder: TempDir, image: Builder, arguments: &[&str]) -> Self {
        Self::spawn_with(folder, image, arguments, &[])
    }

    /// Runs the image with more in its environment.
    pub(crate) fn spawn_with(
        folder: TempDir,
        image: Builder,
        arguments: &[&str],
        environment: &[(&str, String)],
    ) -> Self {
        let mut command = command(folder.path(), "run");
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        Self::spawn_command(folder, image, command, arguments)
    }

    /// Runs the image with a `run` command that lacks its arguments.
    pub(crate) fn spawn_command(
        folder: TempDir,
        image: Builder,
        mut command: Command,
        arguments: &[&str],
    ) -> Self {
        let image = image.write(folder.path());
        command.arg(image);
        Self::spawn_configured(folder, command, arguments)
    }

    /// Runs what the command and the arguments name.
    pub(crate) fn spawn_configured(folder: TempDir, command: Command, arguments: &[&str]) -> Self {
        let directory = folder.path().join("s/test");
        Self::spawn_as(folder, directory, command, arguments)
    }

    /// The same, for an enclave whose folder is `directory`.
    pub(crate) fn spawn_as(
        folder: TempDir,
        directory: PathBuf,
        mut command: Command,
        arguments: &[&str],
    ) -> Self {
        let mut child = command
            .args(["--hypervisor", "sim", "--json"])
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let events = BufReader::new(child.stdout.take().unwrap()).lines();
        let stderr = child.stderr.take().unwrap();
        Self {
            folder,
            child,
            directory,
            events,
            stderr,
        }
    }

    /// Runs the image that an earlier agent ran.
    pub(crate) fn again(folder: TempDir, arguments: &[&str]) -> Self {
        Self::spawn_in(folder, Builder::new(&[], &[]), arguments)
    }

    /// Kills the agent, and nothing else.
    pub(crate) async fn killed(mut self) -> TempDir {
        self.signal(Signal::SIGKILL);
        self.child.wait().await.unwrap();
        self.folder
    }

    /// The enclave's folder.
    pub(crate) fn directory(&self) -> PathBuf {
        self.directory.clone()
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().unwrap().cast_signed())
    }

    /// The process of the sub-command `name` that belongs to this agent.
    pub(crate) fn process(&self, name: &str) -> Pid {
        process(self.folder.path(), name)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// Waits until the init can be told to end.
    pub(crate) async fn until_init_waits(&self) {
        let end = self.directory().join("vsock/end");
        until(|| end.exists()).await;
    }

    /// Has the init end with this code.
    pub(crate) async fn end_init(&self, code: u8) {
        end_init(&self.directory, code).await;
    }

    /// Reads events up to the next one of this kind.
    pub(crate) async fn event(&mut self, kind: &str) -> Value {
        loop {
            let event = self.next_event().await;
            if event["event"] == kind {
                return event;
            }
            assert_ne!(event["event"], "ended", "no event `{kind}`");
        }
    }

    /// Reads the next event.
    pub(crate) async fn next_event(&mut self) -> Value {
        let line = timeout(LIMIT, self.events.next_line()).await.unwrap();
        serde_json::from_str(&line.unwrap().expect("no event comes any more")).unwrap()
    }

    /// Reads events up to the next one of this kind, and gives them all.
    pub(crate) async fn events_until(&mut self, kind: &str) -> Vec<Value> {
        let mut events = Vec::new();
        let reading = async {
            while events
                .last()
                .is_none_or(|event: &Value| event["event"] != kind)
            {
                let line = self.events.next_line().await.unwrap();
                let line = line.unwrap_or_else(|| panic!("no event `{kind}`"));
                events.push(serde_json::from_str(&line).unwrap());
            }
        };
        timeout(LIMIT, reading).await.unwrap();
        events
    }

    /// Waits for the end: exit code, last event, what went to standard error.
    pub(crate) async fn ended(mut self) -> (i32, Value, String) {
        let ended = self.event("ended").await;
        let status = timeout(LIMIT, self.child.wait()).await.unwrap().unwrap();
        let code = status.code().unwrap();
        assert_eq!(ended["exit_code"], code);
        let mut stderr = String::new();
        self.stderr.read_to_string(&mut stderr).await.unwrap();
        nothing_is_left(&self.folder).await;
        (code, ended, stderr)
    }

    /// Waits until an agent that has reported its end is gone.
    pub(crate) async fn finished(mut self) -> TempDir {
        timeout(LIMIT, self.child.wait()).await.unwrap().unwrap();
        nothing_is_left(&self.folder).await;
        self.folder
    }

    /// Waits for the end of an agent that does not start: exit code and error.
    pub(crate) async fn failed(self) -> (i32, String) {
        let (code, stderr, _) = self.failed_and_left().await;
        (code, stderr)
    }

    /// The same, with the folder that it was run in.
    pub(crate) async fn failed_and_left(mut self) -> (i32, String, TempDir) {
        let mut stderr = String::new();
        let read = self.stderr.read_to_string(&mut stderr);
        timeout(LIMIT, read).await.unwrap().unwrap();
        let status = timeout(LIMIT, self.child.wait()).await.unwrap().unwrap();
        (status.code().unwrap(), stderr, self.folder)
    }

    /// Reads standard error up to these words.
    pub(crate) async fn said(&mut self, words: &str) {
        let mut said = Vec::new();
        let reading = async {
            while !String::from_utf8_lossy(&said).contains(words) {
                assert_ne!(self.stderr.read_buf(&mut said).await.unwrap(), 0);
            }
        };
        timeout(LIMIT, reading).await.unwrap();
    }

    /// The local API's answer to a raw request: status and body.
    pub(crate) async fn request(&self, method: &str, path: &str, body: &str) -> (u16, Vec<u8>) {
        let socket = self.directory().join("control.sock");
        let mut stream = tokio::net::UnixStream::connect(socket).await.unwrap();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        timeout(LIMIT, read).await.unwrap().unwrap();
        let head = answer
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
            .unwrap();
        let code = std::str::from_utf8(&answer[9..12])
            .unwrap()
            .parse()
            .unwrap();
        (code, answer.split_off(head + 4))
    }

    pub(crate) async fn status(&self) -> Value {
        let (code, body) = self.request("GET", "/v1/status", "").await;
        assert_eq!(code, 200);
        serde_json::from_slice(&body).unwrap()
    }

    /// Connects to the agent's port as the enclave does.
    pub(crate) async fn connect(&self) -> Stream {
        let path = self.directory().join("vsock/host_7000");
        link::connect(&Endpoint::Unix { path }, LIMIT)
            .await
            .unwrap()
    }

    pub(crate) async fn open(&self, channel: Channel) -> Stream {
        let mut stream = self.connect().await;
        hello::open(&mut stream, channel).await.unwrap();
        stream
    }

    /// Listens as the init does for ingress.
    pub(crate) fn listen(&self) -> Listener {
        let path = self.directory().join("vsock/enclave_7001");
        Listener::bind(&Endpoint::Unix { path }).unwrap()
    }

    /// Gives the heartbeat.
    pub(crate) async fn beat(&self) {
        let path = self.directory().join("vsock/host_9000");
        let mut stream = link::connect(&Endpoint::Unix { path }, LIMIT)
            .await
            .unwrap();
        stream.write_u8(0xb7).await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), 0xb7);
    }

    /// Boots: heartbeat, control connection, readiness.
    pub(crate) async fn boot(&mut self) -> Init {
        self.beat().await;
        let mut init = Init::connect(self, 1).await;
        init.send(FromInit::Ready { at_us: 1000 }).await;
        self.event("ready").await;
        init
    }
}

/// Has the init of the enclave whose folder is `directory` end with this code.
pub(crate) async fn end_init(directory: &Path, code: u8) {
    let end = directory.join("vsock/end");
    tokio::fs::write(end, format!("{code}\n")).await.unwrap();
}

/// The only process whose command line holds the folder and `name`.
pub(crate) fn process(folder: &Path, name: &str) -> Pid {
    let pids: Vec<_> = processes(folder)
        .into_iter()
        .filter(|(_, command)| command.contains(name))
        .map(|(pid, _)| pid)
        .collect();
    assert_eq!(pids.len(), 1, "{name}: {:?}", processes(folder));
    pids[0]
}

/// The init's end of a control connection.
pub(crate) struct Init {
    reader: Reader<ReadHalf<Stream>>,
    writer: Writer<WriteHalf<Stream>>,
    pub(crate) runtime_config: Vec<u8>,
}

impl Init {
    /// Opens a control connection and takes the first message.
    pub(crate) async fn connect(agent: &Agent, boot: u8) -> Self {
        let mut init = Self::say_boot(agent, boot).await;
        let Some(FromAgent::Start { runtime_config }) = init.receive().await else {
            panic!("the first message is not Start");
        };
        init.runtime_config = runtime_config.into_vec();
        init
    }

    pub(crate) async fn say_boot(agent: &Agent, boot: u8) -> Self {
        let stream = agent.open(Channel::Control).await;
        let (read, write) = tokio::io::split(stream);
        let mut init = Self {
            reader: Reader::new(read, MAX_CONTROL),
            writer: Writer::new(write, MAX_CONTROL),
            runtime_config: Vec::new(),
        };
        init.send(FromInit::Boot {
            boot: BootId::new(vec![boot; 16]).unwrap(),
            version: Text::new("9.9.9"),
        })
        .await;
        init
    }

    pub(crate) async fn send(&mut self, message: FromInit) {
        self.writer.send(&message).await.unwrap();
    }

    /// The next message, or `None` when the agent has closed the connection.
    pub(crate) async fn receive(&mut self) -> Option<FromAgent> {
        timeout(LIMIT, self.reader.receive())
            .await
            .unwrap()
            .unwrap()
    }
}

/// Waits until something is so.
pub(crate) async fn until(condition: impl Fn() -> bool) {
    let held = async {
        while !condition() {
            sleep(POLL).await;
        }
    };
    timeout(LIMIT, held).await.expect("it never came to be");
}

/// Waits until neither process nor file of the agent is left.
pub(crate) async fn nothing_is_left(folder: &TempDir) {
    let left = || {
        let trees = fs::read_dir(folder.path()).unwrap().filter_map(|entry| {
            let name = entry.unwrap().file_name().into_string().unwrap();
            name.starts_with("enclave-").then_some(name)
        });
        let state = fs::read_dir(folder.path().join("s"));
        let state = state
            .into_iter()
            .flatten()
            .map(|entry| format!("{entry:?}"));
        let processes = processes(folder.path())
            .into_iter()
            .map(|(_, command)| command);
        trees.chain(state).chain(processes).collect::<Vec<_>>()
    };
    let gone = async {
        while !left().is_empty() {
            sleep(POLL).await;
        }
    };
    assert!(
        timeout(LIMIT, gone).await.is_ok(),
        "left behind: {:?}",
        left()
    );
}

/// The processes whose command line names the folder.
pub(crate) fn processes(folder: &Path) -> Vec<(Pid, String)> {
    let folder = folder.to_str().unwrap();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap() {
        let Some(pid) = entry
            .unwrap()
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        if command.contains(folder) {
            found.push((Pid::from_raw(pid), command));
        }
    }
    found
}
