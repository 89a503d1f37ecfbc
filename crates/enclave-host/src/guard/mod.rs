//! The guard: a small process that owns an enclave's processes and folder, so
//! that a killed agent leaves nothing behind, or the enclave to the next agent.
//!
//! The agent starts it from its own executable, in a process group of its own,
//! with the folder's lock and a socket for requests and events. It reads what
//! the enclave's processes print and keeps the last lines, so that a console
//! without a reader holds nobody up. Once the agent is gone, for whatever
//! reason, the guard waits for another one for as long as it was told to, which
//! is not at all unless the enclave runs and `--keep-for` was given. Then it
//! kills everything below itself, removes the folder and ends. When the guard
//! itself is killed, the kernel kills its children (`PR_SET_PDEATHSIG`) and the
//! agent, or the next `run`, does the rest.

mod children;
mod family;
mod process;
mod protocol;
mod tether;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command as StdCommand, Stdio};
use std::time::Duration;

use nix::sys::prctl;
use nix::sys::stat::{SFlag, fstat};
use thiserror::Error;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use crate::console::Console;
use crate::duration::milliseconds;
use crate::state::{Claim, GUARD_SOCKET};
use protocol::{Answer, Event, MAX_OPENING, Opening, Request, VERSION};

pub use process::serve;
pub use protocol::{Process, ProcessExit};
pub use tether::{TetherArgs, tether};

/// This very program, even after its file was replaced.
pub const SELF: &str = "/proc/self/exe";
/// The variables by which a service manager addresses the agent. Nothing that the
/// agent starts gets them.
pub const SERVICE_VARIABLES: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];
/// How long the guard may take to start a process.
const SPAWN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the guard may take to answer an opening.
const ATTACH_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the guard may take to kill everything and remove the folder.
const FINISH_TIMEOUT: Duration = Duration::from_secs(20);
const GONE_POLL: Duration = Duration::from_millis(5);

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

/// Why a guard's enclave could not be taken over.
#[derive(Debug, Error)]
pub enum Unattached {
    /// The guard is ending, or its last agent is.
    #[error("its guard does not answer: {0}")]
    Later(String),
    /// The guard speaks another version.
    #[error("its guard speaks version {0} of their protocol, this agent version {VERSION}")]
    OtherVersion(u32),
}

/// The agent's side of its guard.
#[derive(Debug)]
pub struct Guard {
    claim: Claim,
    /// The guard's process, if this agent has started it.
    child: Option<Child>,
    requests: OwnedWriteHalf,
    events: Lines<BufReader<OwnedReadHalf>>,
    console: Console,
    /// Ends that were reported while something else was awaited.
    exits: VecDeque<ProcessExit>,
    attached: Option<Attached>,
    /// Whether the enclave is this agent's to end.
    is_ours: bool,
}

/// What a guard says of an enclave that is taken over.
#[derive(Debug, Clone, Copy)]
pub struct Attached {
    /// How long ago the guard was started.
    pub age: Duration,
    /// Whether one of the enclave's processes has ended.
    pub ended: bool,
}

impl Guard {
    /// Starts the guard of a claimed folder. What the enclave's processes write
    /// goes to `console`.
    pub fn start(claim: Claim, console: Console) -> Result<Self, GuardError> {
        // Processes that outlive a killed guard become ours to kill.
        prctl::set_child_subreaper(true)
            .map_err(io::Error::from)
            .map_err(GuardError::Start)?;
        let started = Self::start_process(&claim).map_err(GuardError::Start)?;
        let (child, socket) = started;
        Ok(Self {
            child: Some(child),
            ..Self::new(claim, socket, console)
        })
    }

    fn start_process(claim: &Claim) -> io::Result<(Child, UnixStream)> {
        let lock = claim
            .guard_lock()
            .ok_or_else(|| io::Error::other("the enclave has a guard already"))?;
        let (socket, guard_socket) = StdUnixStream::pair()?;
        socket.set_nonblocking(true)?;
        let mut command = StdCommand::new(SELF);
        for variable in SERVICE_VARIABLES {
            command.env_remove(variable);
        }
        command
            .arg0("parent-agent")
            .arg("guard")
            .arg(claim.directory())
            .process_group(0)
            .stdin(lock.try_clone()?)
            .stdout(OwnedFd::from(guard_socket))
            .stderr(lasting_stderr());
        let child = Command::from(command).spawn()?;
        Ok((child, UnixStream::from_std(socket)?))
    }

    /// Takes over the enclave of a claimed folder that has a guard.
    pub async fn attach(claim: Claim, console: Console) -> Result<Self, Unattached> {
        let opening = Opening::Attach { version: VERSION };
        let (socket, answer) = open(claim.directory(), &opening).await?;
        let attached = match answer {
            Answer::Attached { age_ms, ended } => Attached {
                age: Duration::from_millis(age_ms),
                ended,
            },
            Answer::OtherVersion { version } => return Err(Unattached::OtherVersion(version)),
            Answer::Ending => return Err(Unattached::Later("it is ending".to_owned())),
        };
        Ok(Self {
            attached: Some(attached),
            is_ours: false,
            ..Self::new(claim, socket, console)
        })
    }

    fn new(claim: Claim, socket: UnixStream, console: Console) -> Self {
        let (events, requests) = socket.into_split();
        Self {
            claim,
            child: None,
            requests,
            events: BufReader::new(events).lines(),
            console,
            exits: VecDeque::new(),
            attached: None,
            is_ours: true,
        }
    }

    /// The enclave's folder.
    pub fn directory(&self) -> &Path {
        self.claim.directory()
    }

    /// What the enclave's processes have printed.
    pub fn console(&self) -> &Console {
        &self.console
    }

    /// What the guard said, if the enclave was taken over.
    pub fn attached(&self) -> Option<Attached> {
        self.attached
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
                    Event::Console { .. } => {}
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
                Event::Spawned | Event::SpawnFailed { .. } | Event::Console { .. } => {}
            }
        }
    }

    /// Has an end be the next that [`exited`](Self::exited) gives, once more.
    pub(crate) fn put_back(&mut self, exit: ProcessExit) {
        self.exits.push_front(exit);
    }

    /// Has the enclave go on for so long once this agent is gone. From here on
    /// an enclave that was taken over is this agent's to end.
    pub async fn keep(&mut self, limit: Option<Duration>) -> Result<(), GuardError> {
        let milliseconds = limit.map(milliseconds);
        self.send(&Request::Keep { milliseconds }).await?;
        self.is_ours = true;
        Ok(())
    }

    /// Kills the enclave's processes.
    pub async fn kill(&mut self) -> Result<(), GuardError> {
        self.send(&Request::Kill).await
    }

    /// Whether the enclave is this agent's to end: one that was taken over is
    /// so from [`keep`](Self::keep) on.
    pub fn is_ours(&self) -> bool {
        self.is_ours
    }

    /// Leaves the enclave to the next agent.
    pub fn detach(self) {
        self.claim.release();
    }

    /// Kills what is left of the enclave's processes and removes its folder.
    pub async fn finish(mut self) -> Result<(), GuardError> {
        // One that was killed is noticed below.
        let _ = self.send(&Request::Finish).await;
        let mut result = Ok(());
        let ended = timeout(FINISH_TIMEOUT, async {
            loop {
                match self.receive().await {
                    Ok(Event::CleanUpFailed { reason }) => {
                        result = Err(GuardError::CleanUp(reason));
                    }
                    Ok(_) => {}
                    Err(_) => break,
                }
            }
            if let Some(child) = &mut self.child {
                return child.wait().await.is_ok_and(|status| status.success());
            }
            // What is left then is removed with the claim.
            while self.claim.is_guarded() {
                sleep(GONE_POLL).await;
            }
            true
        })
        .await;
        match (ended, self.child) {
            (Ok(true), _) => result,
            (Ok(false), Some(_)) if result.is_err() => result,
            // What the guard did not do: kill, and (dropping the claim) remove.
            (_, Some(mut child)) => {
                let _ = child.start_kill();
                family::kill_all(FINISH_TIMEOUT)
                    .await
                    .map_err(|error| GuardError::CleanUp(error.to_string()))
            }
            (_, None) => Err(GuardError::CleanUp("the guard does not end".to_owned())),
        }
    }

    async fn send(&mut self, request: &Request) -> Result<(), GuardError> {
        self.requests
            .write_all(&protocol::line(request))
            .await
            .map_err(|_| GuardError::Gone)
    }

    /// The next event; what was printed is taken note of on the way.
    async fn receive(&mut self) -> Result<Event, GuardError> {
        let event = match self.events.next_line().await {
            Ok(Some(line)) => serde_json::from_str(&line).map_err(|_| GuardError::Gone)?,
            Ok(None) | Err(_) => return Err(GuardError::Gone),
        };
        if let Event::Console { lines, repeated } = &event {
            self.console.push(lines.clone(), !repeated);
        }
        Ok(event)
    }
}

/// Has the guard of a claimed folder, which has no agent, kill the enclave and
/// remove the folder. Returns once that is done.
pub async fn end(claim: Claim) -> Result<(), Unattached> {
    let (mut socket, answer) = open(claim.directory(), &Opening::End).await?;
    match answer {
        Answer::Ending => {}
        Answer::OtherVersion { version } => return Err(Unattached::OtherVersion(version)),
        Answer::Attached { .. } => {
            return Err(Unattached::Later("it misunderstands".to_owned()));
        }
    }
    let closed = async {
        // Only the end of the connection is of interest.
        let _ = tokio::io::copy(&mut socket, &mut tokio::io::sink()).await;
        while claim.is_guarded() {
            sleep(GONE_POLL).await;
        }
    };
    timeout(FINISH_TIMEOUT, closed)
        .await
        .map_err(|_| Unattached::Later("it does not end".to_owned()))
}

/// Connects to the guard of a folder and makes the opening.
async fn open(directory: &Path, opening: &Opening) -> Result<(UnixStream, Answer), Unattached> {
    let exchange = async {
        let mut socket = UnixStream::connect(directory.join(GUARD_SOCKET)).await?;
        socket.write_all(&protocol::line(opening)).await?;
        // Byte by byte: what follows belongs to the connection.
        let mut line = Vec::new();
        let mut limited = (&mut socket).take(MAX_OPENING);
        loop {
            match limited.read_u8().await? {
                b'\n' => break,
                byte => line.push(byte),
            }
        }
        Ok::<_, io::Error>((socket, serde_json::from_slice(&line)?))
    };
    match timeout(ATTACH_TIMEOUT, exchange).await {
        Ok(opened) => opened.map_err(|error| Unattached::Later(error.to_string())),
        Err(_) => Err(Unattached::Later("it says nothing".to_owned())),
    }
}

/// Standard error for a process that may outlive this one: a log that goes on,
/// but no pipe or terminal, whose reader would wait for that process's end.
fn lasting_stderr() -> Stdio {
    let stderr = io::stderr();
    let is_log = fstat(stderr.as_fd()).is_ok_and(|stat| {
        let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
        kind == SFlag::S_IFREG || kind == SFlag::S_IFSOCK
    });
    if is_log {
        Stdio::inherit()
    } else {
        Stdio::null()
    }
}
