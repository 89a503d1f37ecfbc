//! `parent-agent run` as a child process, followed by its JSON events.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::screen::Screen;

/// How long the enclave may take to become ready.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the agent may take to end once it was told to.
const END_TIMEOUT: Duration = Duration::from_secs(20);
/// The code of an end because a declared secret could not be had.
const NO_SECRET: &str = "boot.secrets";
/// How many lines of the agent's standard error are kept for an explanation.
const LAST_WORDS: usize = 3;

/// What the agent says first.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Starting {
    ports: Vec<Port>,
    nsm_root: Option<PathBuf>,
}

#[derive(Debug, Clone, Deserialize)]
struct Port {
    listen: SocketAddr,
}

/// What the agent says last.
#[derive(Debug, Clone, Deserialize)]
struct Ended {
    cause: String,
    code: Option<String>,
    detail: String,
}

/// A line of the agent's standard output.
#[derive(Debug, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Event {
    Starting(Starting),
    Ready {
        elapsed_ms: u64,
    },
    Log {
        stream: String,
        #[serde(default)]
        text: String,
    },
    Ended(Ended),
    #[serde(other)]
    Other,
}

/// What is known so far.
#[derive(Debug, Default)]
struct Progress {
    starting: Option<Starting>,
    /// Milliseconds from the agent's start.
    ready: Option<u64>,
    ended: Option<Ended>,
    last_words: VecDeque<String>,
    /// Nothing more will come.
    silent: bool,
}

/// What the agent is started with.
pub(crate) struct Start<'a> {
    pub(crate) arguments: Vec<OsString>,
    /// Further variables of its environment.
    pub(crate) environment: &'a [(String, String)],
    /// Where its temporary files are.
    pub(crate) temporary: &'a Path,
    /// Where its log spool is.
    pub(crate) kept: &'a Path,
    /// Where the enclave's log lines are shown, as they come.
    pub(crate) screen: Option<&'a Arc<Screen>>,
}

/// The running agent.
pub(crate) struct Agent {
    child: Child,
    progress: watch::Receiver<Progress>,
    _readers: JoinSet<()>,
}

/// An enclave that serves.
pub(crate) struct Serving {
    /// Where its ingress port is.
    pub(crate) address: SocketAddr,
    /// The certificate, PEM, of the root that its documents lead to; none where
    /// nobody signs them.
    pub(crate) nsm_root: Option<PathBuf>,
    /// From the agent's start to readiness.
    pub(crate) boot: Duration,
}

impl Agent {
    /// Starts the agent.
    pub(crate) fn start(program: &Path, start: Start<'_>) -> anyhow::Result<Self> {
        let mut child = Command::new(program)
            .args(start.arguments)
            .env("RUST_LOG", "warn")
            .env("TMPDIR", start.temporary)
            .env("XDG_STATE_HOME", start.kept)
            // Of whoever runs the demo, for other credentials.
            .env_remove("AWS_SESSION_TOKEN")
            .envs(start.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let (sender, progress) = watch::channel(Progress::default());
        let (stdout, stderr) = child
            .stdout
            .take()
            .zip(child.stderr.take())
            .context("no pipes to the agent")?;
        let mut readers = JoinSet::new();
        let (output, words) = (sender.clone(), sender);
        let screen = start.screen.cloned();
        readers.spawn(async move {
            each_line(stdout, |line| follow(&output, &line, screen.as_deref())).await;
            output.send_modify(|progress| progress.silent = true);
        });
        readers.spawn(async move {
            each_line(stderr, |line| {
                words.send_modify(|progress| {
                    progress.last_words.push_back(line);
                    if progress.last_words.len() > LAST_WORDS {
                        progress.last_words.pop_front();
                    }
                });
            })
            .await;
        });
        Ok(Self {
            child,
            progress,
            _readers: readers,
        })
    }

    /// Waits until the enclave serves.
    pub(crate) async fn ready(&mut self) -> anyhow::Result<Serving> {
        let known = timeout(
            READY_TIMEOUT,
            self.progress
                .wait_for(|progress| progress.ready.is_some() || progress.silent),
        )
        .await
        .with_context(|| format!("the enclave was not ready within {READY_TIMEOUT:?}"))?
        .context("the agent's output broke off")?;
        let Some(boot_ms) = known.ready else {
            drop(known);
            return Err(self.explain());
        };
        let starting = known.starting.as_ref();
        let starting = starting.context("the agent did not say what it started")?;
        let port = starting.ports.first();
        Ok(Serving {
            address: port.context("the agent opened no ingress port")?.listen,
            nsm_root: starting.nsm_root.clone(),
            boot: Duration::from_millis(boot_ms),
        })
    }

    /// Waits until the enclave has ended for want of a secret, and gives the init's message.
    pub(crate) async fn refused(&mut self) -> anyhow::Result<String> {
        let known = timeout(
            READY_TIMEOUT,
            self.progress
                .wait_for(|progress| progress.ready.is_some() || progress.silent),
        )
        .await
        .with_context(|| format!("the enclave did not end within {READY_TIMEOUT:?}"))?
        .context("the agent's output broke off")?;
        if known.ready.is_some() {
            bail!("the enclave has the secret, which it must not be given");
        }
        let ended = known.ended.clone();
        drop(known);
        let of_secret = ended.filter(|ended| ended.code.as_deref() == Some(NO_SECRET));
        let detail = of_secret.map(|ended| ended.detail);
        self.child.wait().await?;
        detail.ok_or_else(|| self.explain())
    }

    /// Waits until the agent has ended because somebody asked it to.
    pub(crate) async fn stopped(&mut self) -> anyhow::Result<()> {
        let status = timeout(END_TIMEOUT, self.child.wait())
            .await
            .with_context(|| format!("the agent did not end within {END_TIMEOUT:?}"))??;
        // Its last line may still be on its way through the pipe.
        let _ = self.progress.wait_for(|progress| progress.silent).await;
        let as_asked = self
            .progress
            .borrow()
            .ended
            .as_ref()
            .is_some_and(|ended| ended.cause == "stopped");
        if status.success() && as_asked {
            Ok(())
        } else {
            Err(self.explain().context(ended_with(status)))
        }
    }

    /// Ends the agent, however far it is, and with it the enclave.
    pub(crate) async fn end(mut self) {
        let Some(pid) = self.child.id().and_then(|id| i32::try_from(id).ok()) else {
            return;
        };
        // It may end by itself at this moment, which is all that is wanted.
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        if timeout(END_TIMEOUT, self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
    }

    /// Why the enclave ended, from what the agent said.
    fn explain(&self) -> anyhow::Error {
        let progress = self.progress.borrow();
        match (&progress.ended, progress.last_words.back()) {
            (Some(ended), _) => anyhow!("the enclave ended ({}): {}", ended.cause, ended.detail),
            (None, Some(line)) => anyhow!("parent-agent: {line}"),
            (None, None) => anyhow!("parent-agent ended without a word"),
        }
    }
}

/// Runs a program to its end and returns its standard output.
pub(crate) async fn output(
    program: &Path,
    arguments: impl IntoIterator<Item = OsString>,
) -> anyhow::Result<Vec<u8>> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| format!("cannot start {}", program.display()))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let reason = stderr.lines().rfind(|line| !line.is_empty());
        bail!(
            "{}: {}",
            ended_with(output.status),
            reason.unwrap_or("it said nothing")
        );
    }
    Ok(output.stdout)
}

fn ended_with(status: ExitStatus) -> String {
    match status.code() {
        Some(code) => format!("exit code {code}"),
        None => status.to_string(),
    }
}

async fn each_line(stream: impl AsyncRead + Unpin, mut take: impl FnMut(String)) {
    let mut lines = BufReader::new(stream).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        take(line);
    }
}

fn follow(progress: &watch::Sender<Progress>, line: &str, screen: Option<&Screen>) {
    match serde_json::from_str(line) {
        Ok(Event::Log { stream, text }) => {
            if let Some(screen) = screen {
                screen.log(&stream, &text);
            }
        }
        Ok(Event::Starting(starting)) => {
            progress.send_modify(|progress| progress.starting = Some(starting));
        }
        Ok(Event::Ready { elapsed_ms }) => {
            progress.send_modify(|progress| progress.ready = Some(elapsed_ms));
        }
        Ok(Event::Ended(ended)) => {
            progress.send_modify(|progress| progress.ended = Some(ended));
        }
        Ok(Event::Other) => {}
        Err(error) => {
            if let Some(screen) = screen {
                screen.note(&format!("   an event could not be read ({error}): {line}"));
            }
        }
    }
}
