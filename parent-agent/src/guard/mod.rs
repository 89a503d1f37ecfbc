//! The guard: a small process that owns an enclave's processes and folder, so
//! that a killed agent leaves nothing behind.
//!
//! The agent starts it from its own executable, in a process group of its own,
//! with three descriptors: the folder's lock, a socket for requests and
//! events, and the pipe that carries the console. Once the socket is closed
//! at the agent's end, for whatever reason, the guard kills everything below
//! itself, removes the folder and ends. When the guard itself is killed, the
//! kernel kills its children (`PR_SET_PDEATHSIG`) and the agent does the rest.

mod family;
mod process;
mod tether;

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, PipeReader};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command as StdCommand, ExitStatus};
use std::time::Duration;

use nix::sys::prctl;
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::state::Claim;

pub use process::serve;
pub use tether::{TetherArgs, tether};

/// This very program, even after its file was replaced.
const SELF: &str = "/proc/self/exe";
/// How long the guard may take to start a process.
const SPAWN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the guard may take to kill everything and remove the folder.
const FINISH_TIMEOUT: Duration = Duration::from_secs(20);

/// Why a guard could not do its work.
#[derive(Debug, Error)]
pub enum GuardError {
    /// The guard could not be started.
    #[error("the guard process cannot be started: {0}; is /proc mounted?")]
    Start(#[source] io::Error),
    /// It ended before its time.
    #[error("the guard process was killed")]
    Gone,
    /// A process of the enclave could not be started.
    #[error("{name} cannot be started: {reason}")]
    Spawn {
        /// The process.
        name: String,
        /// Why.
        reason: String,
    },
    /// Something could not be removed.
    #[error("cannot clean up: {0}; the next `run` tries again")]
    CleanUp(String),
}

/// A process of an enclave.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Process {
    /// What it is called in messages.
    pub name: String,
    /// Its program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Whether it gets the agent's environment; otherwise it gets none.
    pub inherits_environment: bool,
    /// Its `TMPDIR`, if it leaves temporary files behind when it is killed.
    pub temporary: Option<PathBuf>,
}

/// What the agent asks of the guard, one JSON object a line.
#[derive(Debug, Serialize, Deserialize)]
enum Request {
    /// Start a process.
    Spawn(Process),
    /// Kill every process.
    Kill,
}

/// What the guard reports, one JSON object a line.
#[derive(Debug, Serialize, Deserialize)]
enum Event {
    /// A process has been started.
    Spawned,
    /// A process could not be started.
    SpawnFailed { name: String, reason: String },
    /// A process has ended.
    Exited(ProcessExit),
    /// Last: something could not be removed.
    CleanUpFailed { reason: String },
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessExit {
    /// The process.
    pub name: String,
    /// Its exit code, if it had one.
    pub code: Option<i32>,
    /// The signal that killed it, if one did.
    pub signal: Option<i32>,
}

impl ProcessExit {
    fn new(name: String, status: ExitStatus) -> Self {
        use std::os::unix::process::ExitStatusExt;
        Self {
            name,
            code: status.code(),
            signal: status.signal(),
        }
    }
}

impl fmt::Display for ProcessExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.code, self.signal) {
            (Some(code), _) => write!(f, "{} ended with code {code}", self.name),
            (None, Some(signal)) => match Signal::try_from(signal) {
                Ok(known) => write!(f, "{} was killed by {known}", self.name),
                Err(_) => write!(f, "{} was killed by signal {signal}", self.name),
            },
            (None, None) => write!(f, "{} ended", self.name),
        }
    }
}

/// The agent's side of its guard.
#[derive(Debug)]
pub struct Guard {
    claim: Claim,
    child: Child,
    requests: OwnedWriteHalf,
    events: Lines<BufReader<OwnedReadHalf>>,
    /// Ends that were reported while something else was awaited.
    exits: VecDeque<ProcessExit>,
}

impl Guard {
    /// Starts the guard of a claimed folder. The pipe carries what the
    /// enclave's processes write.
    pub fn start(claim: Claim) -> Result<(Self, PipeReader), GuardError> {
        // Processes that outlive a killed guard become ours to kill.
        prctl::set_child_subreaper(true)
            .map_err(io::Error::from)
            .map_err(GuardError::Start)?;
        Self::start_process(claim).map_err(GuardError::Start)
    }

    fn start_process(claim: Claim) -> io::Result<(Self, PipeReader)> {
        let (console, console_writer) = io::pipe()?;
        let (socket, guard_socket) = StdUnixStream::pair()?;
        socket.set_nonblocking(true)?;
        let mut command = StdCommand::new(SELF);
        command
            .arg0("parent-agent")
            .arg("guard")
            .arg(claim.directory())
            .process_group(0)
            .stdin(claim.lock().try_clone()?)
            .stdout(OwnedFd::from(guard_socket))
            .stderr(console_writer);
        let child = Command::from(command).spawn()?;
        let (events, requests) = UnixStream::from_std(socket)?.into_split();
        let guard = Self {
            claim,
            child,
            requests,
            events: BufReader::new(events).lines(),
            exits: VecDeque::new(),
        };
        Ok((guard, console))
    }

    /// The enclave's folder.
    pub fn directory(&self) -> &Path {
        self.claim.directory()
    }

    /// Starts a process.
    pub async fn spawn(&mut self, process: Process) -> Result<(), GuardError> {
        let name = process.name.clone();
        self.send(&Request::Spawn(process)).await?;
        let answer = async {
            loop {
                match self.receive().await? {
                    Event::Spawned => return Ok(()),
                    Event::SpawnFailed { name, reason } => {
                        return Err(GuardError::Spawn { name, reason });
                    }
                    Event::Exited(exit) => self.exits.push_back(exit),
                    Event::CleanUpFailed { reason } => return Err(GuardError::CleanUp(reason)),
                }
            }
        };
        timeout(SPAWN_TIMEOUT, answer).await.unwrap_or_else(|_| {
            Err(GuardError::Spawn {
                name,
                reason: format!("it took longer than {} s", SPAWN_TIMEOUT.as_secs()),
            })
        })
    }

    /// The next process that ends. Cancellation safe.
    pub async fn exited(&mut self) -> Result<ProcessExit, GuardError> {
        if let Some(exit) = self.exits.pop_front() {
            return Ok(exit);
        }
        loop {
            match self.receive().await? {
                Event::Exited(exit) => return Ok(exit),
                Event::CleanUpFailed { reason } => return Err(GuardError::CleanUp(reason)),
                Event::Spawned | Event::SpawnFailed { .. } => {}
            }
        }
    }

    /// Kills the enclave's processes.
    pub async fn kill(&mut self) -> Result<(), GuardError> {
        self.send(&Request::Kill).await
    }

    /// Kills what is left of the enclave's processes and removes its folder.
    pub async fn finish(mut self) -> Result<(), GuardError> {
        // The guard takes the end of its socket for the end of the agent.
        let _ = self.requests.shutdown().await;
        let mut result = Ok(());
        let ended = timeout(FINISH_TIMEOUT, async {
            loop {
                match self.receive().await {
                    Ok(Event::CleanUpFailed { reason }) => {
                        result = Err(GuardError::CleanUp(reason));
                    }
                    Ok(_) => {}
                    Err(_) => return self.child.wait().await,
                }
            }
        })
        .await;
        match ended {
            Ok(Ok(status)) if status.success() || result.is_err() => result,
            _ => {
                // What the guard did not do: kill, and (dropping the claim) remove.
                let _ = self.child.start_kill();
                family::kill_all(FINISH_TIMEOUT)
                    .await
                    .map_err(|error| GuardError::CleanUp(error.to_string()))
            }
        }
    }

    async fn send(&mut self, request: &Request) -> Result<(), GuardError> {
        let mut line = serde_json::to_vec(request).map_err(|error| GuardError::Spawn {
            name: "a process".to_owned(),
            reason: error.to_string(),
        })?;
        line.push(b'\n');
        self.requests
            .write_all(&line)
            .await
            .map_err(|_| GuardError::Gone)
    }

    async fn receive(&mut self) -> Result<Event, GuardError> {
        match self.events.next_line().await {
            Ok(Some(line)) => serde_json::from_str(&line).map_err(|_| GuardError::Gone),
            Ok(None) | Err(_) => Err(GuardError::Gone),
        }
    }
}
