//! What agents and guards say to each other: one JSON object a line.
//!
//! An agent that finds an enclave which another agent has left connects to the
//! guard's socket in the enclave's folder. Its first line is an [`Opening`], the
//! guard's an [`Answer`]; from then on it sends [`Request`]s and is told
//! [`Event`]s, like the agent that started the guard, which does without an
//! opening. An agent may be of a later release than the guard: `Opening` and
//! `Answer` stay as they are in every version, so that any release can at least
//! end the enclave of any other.

use std::fmt;
use std::path::PathBuf;
use std::process::ExitStatus;

use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

/// The version of requests and events.
pub(super) const VERSION: u32 = 1;
/// Longest opening and answer, in bytes.
pub(super) const MAX_OPENING: u64 = 1024;

/// The first line of a connection to a guard.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Opening {
    /// Take the enclave over.
    Attach { version: u32 },
    /// Kill the enclave and remove its folder.
    End,
}

/// What a guard answers to an opening.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    /// The enclave is the agent's.
    Attached {
        /// Milliseconds since the guard's start.
        age_ms: u64,
        /// Whether one of the enclave's processes has ended already.
        ended: bool,
    },
    /// The guard speaks another version.
    OtherVersion { version: u32 },
    /// The end has begun; it has come when the connection is closed.
    Ending,
}

/// What the agent asks of the guard.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    /// Start a process.
    Spawn(Process),
    /// How long the enclave goes on without an agent, if at all.
    Keep { milliseconds: Option<u64> },
    /// Kill every process.
    Kill,
    /// Kill every process, remove the folder and end.
    Finish,
}

/// What the guard reports.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Event {
    /// A process has been started.
    Spawned,
    /// A process could not be started.
    SpawnFailed { name: String, reason: String },
    /// A process has ended. What it has printed was told before.
    Exited(ProcessExit),
    /// The enclave's processes have printed something.
    Console {
        lines: Vec<String>,
        /// Whether an earlier agent was told the same.
        repeated: bool,
    },
    /// Last: something could not be removed.
    CleanUpFailed { reason: String },
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
    pub(super) fn new(name: String, status: ExitStatus) -> Self {
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

/// A message as its line.
pub(super) fn line(message: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(message).expect("nothing that JSON cannot express");
    line.push(b'\n');
    line
}
