//! The processes of an enclave, which end with the guard.

use std::io::{self, PipeWriter};
use std::os::unix::process::CommandExt;
use std::process::{Command as StdCommand, Stdio};

use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::SELF;
use super::protocol::{Event, Process, ProcessExit};

#[derive(Debug)]
pub(super) struct Children {
    /// What they print goes here.
    console: PipeWriter,
    waits: JoinSet<ProcessExit>,
    kills: Vec<oneshot::Sender<()>>,
    /// Enclave processes end when this end of their standard input is closed.
    inputs: Vec<ChildStdin>,
}

impl Children {
    pub(super) fn new(console: PipeWriter) -> Self {
        Self {
            console,
            waits: JoinSet::new(),
            kills: Vec::new(),
            inputs: Vec::new(),
        }
    }

    pub(super) fn spawn(&mut self, process: &Process) -> Event {
        let name = process.name.clone();
        match self.start(process) {
            Ok(mut child) => {
                self.inputs.extend(child.stdin.take());
                let (kill, killed) = oneshot::channel();
                self.kills.push(kill);
                self.waits.spawn(wait(name, child, killed));
                Event::Spawned
            }
            Err(error) => Event::SpawnFailed {
                name,
                reason: error.to_string(),
            },
        }
    }

    /// Starts a process that the kernel kills if this one is killed.
    fn start(&self, process: &Process) -> io::Result<Child> {
        let mut command = StdCommand::new(SELF);
        command
            .arg0("parent-agent")
            .arg("tether")
            .arg(std::process::id().to_string())
            .arg(&process.program)
            .args(&process.arguments)
            .stdin(Stdio::piped())
            .stdout(self.console.try_clone()?)
            .stderr(self.console.try_clone()?);
        if !process.inherits_environment {
            command.env_clear();
        }
        if let Some(temporary) = &process.temporary {
            command.env("TMPDIR", temporary);
        }
        Command::from(command).spawn()
    }

    /// The next that ends; none if there is none. Cancellation safe.
    pub(super) async fn exited(&mut self) -> Option<ProcessExit> {
        // A wait neither panics nor is cancelled before `give_up`.
        self.waits.join_next().await?.ok()
    }

    pub(super) fn kill(&mut self) {
        self.kills.clear();
    }

    /// Waits for none of them any more: they are about to be reaped all at once.
    pub(super) fn give_up(&mut self) {
        self.waits.abort_all();
    }
}

/// Waits for a process, and kills it once the sender of `killed` is dropped.
async fn wait(name: String, mut child: Child, killed: oneshot::Receiver<()>) -> ProcessExit {
    let status = tokio::select! {
        status = child.wait() => status,
        _ = killed => {
            // It may have ended in this moment.
            let _ = child.start_kill();
            child.wait().await
        }
    };
    match status {
        Ok(status) => ProcessExit::new(name, status),
        Err(_) => ProcessExit {
            name,
            code: None,
            signal: None,
        },
    }
}
