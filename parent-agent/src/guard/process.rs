//! The guard's own process.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command as StdCommand, Stdio};
use std::time::Duration;

use nix::sys::prctl;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::process::{Child, ChildStdin, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

use super::{Event, Process, ProcessExit, Request, SELF, family};
use crate::state;

/// How long killed processes may take to be gone.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// Guards the enclave of `directory` until the agent's end of the socket on
/// standard output is closed; then kills and removes everything.
pub async fn serve(directory: &Path) -> io::Result<()> {
    prctl::set_child_subreaper(true)?;
    // The agent decides when the enclave ends: a terminal's or a service
    // manager's signals are for it alone.
    let _ignored = [
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
        signal(SignalKind::hangup())?,
    ];
    let lock = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let socket = StdUnixStream::from(io::stdout().as_fd().try_clone_to_owned()?);
    socket.set_nonblocking(true)?;
    let (requests, mut events) = UnixStream::from_std(socket)?.into_split();
    let mut requests = BufReader::new(requests).lines();

    let mut processes = Processes::default();
    loop {
        tokio::select! {
            line = requests.next_line() => {
                let Ok(Some(line)) = line else { break };
                match serde_json::from_str(&line) {
                    Ok(Request::Spawn(process)) => {
                        let event = processes.spawn(&process);
                        if send(&mut events, &event).await.is_err() {
                            break;
                        }
                    }
                    Ok(Request::Kill) => processes.kill(),
                    Err(_) => break,
                }
            }
            Some(Ok(exit)) = processes.waits.join_next() => {
                if send(&mut events, &Event::Exited(exit)).await.is_err() {
                    break;
                }
            }
        }
    }
    // What was waited for one by one is now reaped all at once.
    processes.waits.abort_all();
    let cleaned = match family::kill_all(KILL_TIMEOUT).await {
        Ok(()) => state::remove(directory, &lock),
        Err(error) => Err(error),
    };
    if let Err(error) = &cleaned {
        let reason = error.to_string();
        // The agent may be gone.
        let _ = send(&mut events, &Event::CleanUpFailed { reason }).await;
    }
    cleaned
}

#[derive(Default)]
struct Processes {
    waits: JoinSet<ProcessExit>,
    kills: Vec<tokio::sync::oneshot::Sender<()>>,
    /// Enclave processes end when this end of their standard input is closed.
    inputs: Vec<ChildStdin>,
}

impl Processes {
    fn spawn(&mut self, process: &Process) -> Event {
        let name = process.name.clone();
        match start(process) {
            Ok(mut child) => {
                self.inputs.extend(child.stdin.take());
                let (kill, killed) = tokio::sync::oneshot::channel();
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

    fn kill(&mut self) {
        self.kills.clear();
    }
}

/// Starts a process that the kernel kills if this one is killed.
fn start(process: &Process) -> io::Result<Child> {
    let mut command = StdCommand::new(SELF);
    command
        .arg0("parent-agent")
        .arg("tether")
        .arg(std::process::id().to_string())
        .arg(&process.program)
        .args(&process.arguments)
        .stdin(Stdio::piped())
        .stdout(io::stderr().as_fd().try_clone_to_owned()?);
    if !process.inherits_environment {
        command.env_clear();
    }
    if let Some(temporary) = &process.temporary {
        command.env("TMPDIR", temporary);
    }
    Command::from(command).spawn()
}

/// Waits for a process, and kills it once the sender of `killed` is dropped.
async fn wait(
    name: String,
    mut child: Child,
    killed: tokio::sync::oneshot::Receiver<()>,
) -> ProcessExit {
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

async fn send(events: &mut OwnedWriteHalf, event: &Event) -> io::Result<()> {
    let mut line = serde_json::to_vec(event)?;
    line.push(b'\n');
    events.write_all(&line).await
}
