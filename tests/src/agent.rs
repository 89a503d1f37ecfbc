//! `parent-agent run` as a child process, and everything that it says.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::image::Workload;
use crate::process::descendants;
use crate::programs::{Hypervisor, Programs};

/// Longer than anything takes, under emulation on a busy machine; only what
/// fails waits so long.
pub const LIMIT: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(10);

/// A running agent with its enclave, in a folder of its own.
pub struct Agent {
    programs: Programs,
    folder: TempDir,
    /// Its arguments.
    run: Vec<String>,
    /// What is added to its environment.
    environment: Vec<(String, String)>,
    child: Child,
    events: Events,
    /// How many events there are; closed after the last.
    count: watch::Receiver<usize>,
}

type Events = Arc<Mutex<Vec<Value>>>;

/// How an agent ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code; none if a signal killed it.
    pub code: Option<i32>,
    /// Every event.
    pub events: Vec<Value>,
    /// Standard error.
    pub stderr: String,
}

impl Agent {
    /// Starts the workload's image in the role that the runtime configuration names.
    pub fn start(
        programs: &Programs,
        image: &Workload,
        hypervisor: Hypervisor,
        role: &str,
        arguments: &[&str],
    ) -> anyhow::Result<Self> {
        Self::start_with(programs, image, hypervisor, role, arguments, &[])
    }

    /// Starts it with more in the agent's environment.
    pub fn start_with(
        programs: &Programs,
        image: &Workload,
        hypervisor: Hypervisor,
        role: &str,
        arguments: &[&str],
        environment: &[(&str, String)],
    ) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("e2e-").tempdir()?;
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("tmp"))?;
        fs::write(path("role"), role)?;
        let text = |path: PathBuf| path.display().to_string();
        let mut run = vec!["run".to_owned(), text(image.path.clone())];
        run.extend(programs.hypervisor(hypervisor));
        run.extend(["--json", "--publish", "127.0.0.1:0:8080", "--state-dir"].map(str::to_owned));
        run.extend([text(path("state")), "--runtime-config".to_owned()]);
        run.push(text(path("role")));
        run.extend(arguments.iter().map(|&argument| argument.to_owned()));
        let environment: Vec<_> = environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()))
            .collect();
        let (child, events, count) = spawn(programs, folder.path(), &run, &environment)?;
        Ok(Self {
            programs: programs.clone(),
            folder,
            run,
            environment,
            child,
            events,
            count,
        })
    }

    /// Kills the agent, and nothing else. Gives what it has said.
    pub async fn kill(&mut self) -> anyhow::Result<Vec<Value>> {
        self.child.start_kill()?;
        self.child.wait().await?;
        let closed = async { while self.count.changed().await.is_ok() {} };
        timeout(LIMIT, closed)
            .await
            .context("somebody holds standard output")?;
        Ok(std::mem::take(&mut *self.events()))
    }

    /// Starts another agent with the same arguments, after the end of this one.
    pub fn run_again(&mut self) -> anyhow::Result<()> {
        let again = spawn(
            &self.programs,
            self.folder.path(),
            &self.run,
            &self.environment,
        )?;
        (self.child, self.events, self.count) = again;
        Ok(())
    }

    /// The agent's process.
    pub fn pid(&self) -> anyhow::Result<Pid> {
        let id = self.child.id().context("the agent has ended")?;
        Ok(Pid::from_raw(i32::try_from(id)?))
    }

    /// Sends a signal to the agent.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        Ok(kill(self.pid()?, signal)?)
    }

    /// The folder of everything that the agent makes.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Waits for the first event that `wanted` accepts.
    pub async fn event(&mut self, wanted: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
        let mut seen = 0;
        let search = async {
            loop {
                {
                    let events = self.events();
                    let new = events.get(seen..).unwrap_or_default();
                    if let Some(event) = new.iter().find(|event| wanted(event)) {
                        return Ok(event.clone());
                    }
                    seen = events.len();
                }
                if self.count.changed().await.is_err() && seen == self.events().len() {
                    bail!("it never said so; its last words: {}", self.last_words());
                }
            }
        };
        timeout(LIMIT, search)
            .await
            .unwrap_or_else(|_| bail!("it never said so; its last words: {}", self.last_words()))
    }

    /// Waits until the workload is ready, and gives the address of its port.
    pub async fn ready(&mut self) -> anyhow::Result<SocketAddr> {
        let is_ready = |event: &Value| event["event"] == "ready" || event["ready"] == true;
        self.event(is_ready).await?;
        let began = |event: &Value| event["event"] == "starting" || event["event"] == "attached";
        let started = self.event(began).await?;
        let listen = started.pointer("/ports/0/listen").and_then(Value::as_str);
        Ok(listen.context("no port")?.parse()?)
    }

    /// Waits for a line of the workload.
    pub async fn line(&mut self, text: &str) -> anyhow::Result<()> {
        let is_line = |event: &Value| event["stream"] == "application" && event["text"] == text;
        self.event(is_line)
            .await
            .with_context(|| format!("the line {text:?}"))?;
        Ok(())
    }

    /// The output of another of the agent's commands for this enclave.
    pub async fn command(&self, command: &str, arguments: &[&str]) -> anyhow::Result<Vec<u8>> {
        let state = self.folder().join("state").display().to_string();
        let arguments = [arguments, &["--state-dir", &state]].concat();
        self.output(command, &arguments).await
    }

    /// What `parent-agent logs` prints, whether the agent runs or not.
    pub async fn logs(&self, arguments: &[&str]) -> anyhow::Result<Vec<u8>> {
        self.output("logs", arguments).await
    }

    async fn output(&self, command: &str, arguments: &[&str]) -> anyhow::Result<Vec<u8>> {
        let output = Command::new(self.programs.path("parent-agent"))
            .arg(command)
            .args(arguments)
            .env("XDG_STATE_HOME", self.folder().join("left"))
            .kill_on_drop(true)
            .output();
        let output = timeout(LIMIT, output).await??;
        ensure!(
            output.status.success(),
            "parent-agent {command}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(output.stdout)
    }

    /// The answer of `parent-agent status`.
    pub async fn status(&self) -> anyhow::Result<Value> {
        Ok(serde_json::from_slice(
            &self.command("status", &["--json"]).await?,
        )?)
    }

    /// The processes on this machine that belong to the enclave: those whose
    /// command line holds `word`, below the agent.
    pub fn processes(&self, word: &str) -> anyhow::Result<Vec<Pid>> {
        let mut found = Vec::new();
        for pid in descendants(self.child.id().context("the agent has ended")?) {
            let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if String::from_utf8_lossy(&command).contains(word) {
                found.push(Pid::from_raw(i32::try_from(pid)?));
            }
        }
        Ok(found)
    }

    /// Waits for the agent's end and checks that nothing is left behind.
    pub async fn ended(mut self) -> anyhow::Result<Ended> {
        let status = timeout(LIMIT, self.child.wait())
            .await
            .with_context(|| format!("it does not end: {}", self.last_words()))??;
        let closed = async { while self.count.changed().await.is_ok() {} };
        timeout(LIMIT, closed)
            .await
            .context("somebody holds standard output")?;
        self.nothing_is_left().await?;
        let mut stderr = String::new();
        tokio::fs::File::open(self.folder().join("stderr"))
            .await?
            .read_to_string(&mut stderr)
            .await?;
        Ok(Ended {
            code: status.code(),
            events: std::mem::take(&mut *self.events()),
            stderr,
        })
    }

    /// Stops the enclave and waits for the agent's end.
    pub async fn stopped(self) -> anyhow::Result<Ended> {
        self.command("stop", &[]).await?;
        self.ended().await
    }

    async fn nothing_is_left(&self) -> anyhow::Result<()> {
        let kept: [PathBuf; 2] = ["state", "tmp"].map(|name| self.folder().join(name));
        let folders: Vec<&Path> = kept.iter().map(PathBuf::as_path).collect();
        let left = || demo::leftovers::find(self.folder(), &folders);
        let gone = async {
            while !left().is_empty() {
                sleep(POLL).await;
            }
        };
        if timeout(LIMIT, gone).await.is_err() {
            bail!("left behind: {}", left().join(", "));
        }
        Ok(())
    }

    fn events(&self) -> MutexGuard<'_, Vec<Value>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn last_words(&self) -> String {
        let events = self.events();
        let from = events.len().saturating_sub(5);
        let last = events.get(from..).unwrap_or_default();
        let stderr = fs::read_to_string(self.folder().join("stderr")).unwrap_or_default();
        format!("{last:?} {stderr}")
    }
}

impl Ended {
    /// The last event.
    pub fn end(&self) -> &Value {
        self.events.last().unwrap_or(&Value::Null)
    }

    /// The log records of a stream, in the order of their arrival.
    pub fn records(&self, stream: &str) -> impl Iterator<Item = &Value> {
        self.events
            .iter()
            .filter(move |event| event["event"] == "log" && event["stream"] == stream)
    }
}

/// Starts an agent whose files are in `folder`, and reads what it says.
fn spawn(
    programs: &Programs,
    folder: &Path,
    arguments: &[String],
    environment: &[(String, String)],
) -> anyhow::Result<(Child, Events, watch::Receiver<usize>)> {
    // An earlier agent's guard may write there too.
    let stderr = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(folder.join("stderr"))?;
    let mut child = Command::new(programs.path("parent-agent"))
        .args(arguments)
        .env("TMPDIR", folder.join("tmp"))
        .env("XDG_STATE_HOME", folder.join("left"))
        .env("RUST_LOG", "warn")
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(stderr)
        .kill_on_drop(true)
        .spawn()
        .context("cannot start parent-agent")?;
    let stdout = child.stdout.take().context("no pipe to the agent")?;
    let events = Events::default();
    let (sender, count) = watch::channel(0);
    let kept = Arc::clone(&events);
    tokio::spawn(async move {
        let mut lines = BufReader::new(stdout).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let event = serde_json::from_str(&line).unwrap_or(Value::String(line));
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.push(event);
            sender.send_replace(kept.len());
        }
    });
    Ok((child, events, count))
}
