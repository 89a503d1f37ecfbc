//! Commands beside the workload, as the init follows them: their output and time are
//! bounded, and what they have started ends with them.

use std::cell::RefCell;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use link::control::ExitStatus;
use manifest::{Command, MeasuredConfig, Workload};
use nix::unistd::Pid;
use tokio::net::unix::pipe;
use tokio::time::timeout;

use crate::confinement::{Confinement, Errand, Side};
use crate::error::{Doing, InitError};
use crate::logs::{Excerpt, Logs};
use crate::reaper::{Ended, Reaper};
use crate::workload::{Given, describe, variables};

/// What is kept of a command's output, in bytes; the rest is read and forgotten.
const MAX_OUTPUT: usize = 4 * 1024;
const READ_BYTES: usize = 1024;
/// What is read of the output after the command's end, at most, in reads: something that it
/// has left may go on writing.
const MAX_LAST_READS: usize = 64;
/// How long what was killed may take to be gone.
const KILL_TIMEOUT: Duration = Duration::from_secs(1);

/// Starts commands, of each side one at a time.
pub(crate) struct Companions<'a> {
    config: &'a MeasuredConfig,
    workload: &'a Workload,
    given: Given<'a>,
    confinement: Arc<Confinement>,
    reaper: Reaper,
    /// The ends of the last commands.
    last: RefCell<Vec<(Side, Ended)>>,
}

/// A running command.
pub(crate) struct Companion {
    ended: Ended,
    output: pipe::Receiver,
    bound: Bound,
}

/// What came of a command.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// None if it did not end in time.
    pub(crate) status: Option<ExitStatus>,
    output: Output,
}

/// What a command has written, of which no more than the workload's own may leave.
#[derive(Debug, Default, PartialEq, Eq)]
struct Output {
    /// The beginning.
    text: Vec<u8>,
    is_cut: bool,
    /// Nobody can write more.
    has_ended: bool,
}

/// Kills a command, and what it has started, when it is dropped.
struct Bound {
    pid: Pid,
    side: Side,
    confinement: Arc<Confinement>,
    reaper: Reaper,
}

impl<'a> Companions<'a> {
    pub(crate) fn new(
        config: &'a MeasuredConfig,
        workload: &'a Workload,
        given: Given<'a>,
        confinement: &Arc<Confinement>,
        reaper: &Reaper,
    ) -> Self {
        Self {
            config,
            workload,
            given,
            confinement: Arc::clone(confinement),
            reaper: reaper.clone(),
            last: RefCell::default(),
        }
    }

    /// Starts a command beside the workload's main process, with the environment that the
    /// workload would be started with now, unless the command before it is still there.
    pub(crate) fn start(
        &self,
        side: Side,
        workload: BorrowedFd<'_>,
        command: &[String],
    ) -> Result<Companion, InitError> {
        let mut last = self.last.borrow_mut();
        last.retain(|(_, ended)| !ended.is_over());
        if last.iter().any(|(before, _)| *before == side) {
            return Err(InitError::Workload(
                "the command before it was killed and is still there".to_owned(),
            ));
        }
        let errand = Errand {
            command,
            variables: variables(self.config, self.workload, self.given),
            settings: &self.config.confinement,
            beside: self.workload,
            workload,
        };
        let (pid, ended, output) = self.reaper.spawn(|| self.confinement.send(side, &errand))?;
        let bound = Bound {
            pid,
            side,
            confinement: Arc::clone(&self.confinement),
            reaper: self.reaper.clone(),
        };
        last.push((side, ended.clone()));
        Ok(Companion {
            ended,
            output: receiver(output)?,
            bound,
        })
    }
}

fn receiver(output: OwnedFd) -> Result<pipe::Receiver, InitError> {
    pipe::Receiver::from_owned_fd(output).doing(|| "reading a command's output".to_owned())
}

impl Companion {
    /// Waits for the command's end, and no longer than this.
    pub(crate) async fn outcome(mut self, limit: Duration) -> Outcome {
        let mut output = Output::default();
        let status = timeout(limit, self.follow(&mut output)).await.ok();
        let Self {
            mut ended, bound, ..
        } = self;
        drop(bound);
        if status.is_none() {
            let _ = timeout(KILL_TIMEOUT, ended.wait()).await;
        }
        Outcome { status, output }
    }

    async fn follow(&mut self, output: &mut Output) -> ExitStatus {
        let status = loop {
            tokio::select! {
                status = self.ended.wait() => break status,
                ready = self.output.readable(), if !output.has_ended => match ready {
                    Ok(()) => drop(output.take(&self.output)),
                    Err(_) => output.has_ended = true,
                },
            }
        };
        let mut reads = 0;
        while !output.has_ended && reads < MAX_LAST_READS && output.take(&self.output) {
            reads += 1;
        }
        status
    }
}

impl Output {
    /// Takes over what is there; false if that is nothing.
    fn take(&mut self, pipe: &pipe::Receiver) -> bool {
        let mut bytes = [0; READ_BYTES];
        match pipe.try_read(&mut bytes) {
            Ok(count @ 1..) => {
                let room = MAX_OUTPUT.saturating_sub(self.text.len());
                self.is_cut |= count > room;
                self.text.extend(bytes.iter().take(count.min(room)));
                true
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => false,
            Ok(0) | Err(_) => {
                self.has_ended = true;
                false
            }
        }
    }
}

/// How long a command may take that follows the change of a secret.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(60);

impl Companion {
    /// Waits for a command that follows the change of a secret, and tells the log of it.
    pub(crate) async fn follow_change(self, command: Command, logs: Logs) {
        let outcome = self.outcome(CHANGE_TIMEOUT).await;
        let (output, name) = (outcome.excerpt(), format!("secrets: `{command}`"));
        match outcome.complaint(CHANGE_TIMEOUT) {
            None => {
                let sentence = format!("{name} has ended with exit code 0");
                logs.system(logs.with_output(sentence, output));
            }
            Some(complaint) => {
                let sentence = format!("{name}, which follows a change, failed: {complaint}");
                logs.error(logs.with_output(sentence, output));
            }
        }
    }
}

impl Outcome {
    /// What is wrong with it; none if it has ended with code 0.
    pub(crate) fn complaint(&self, limit: Duration) -> Option<String> {
        match self.status {
            Some(ExitStatus::Code(0)) => None,
            Some(status) => Some(format!("it ended with {}", describe(status))),
            None => Some(format!("it did not end within {limit:?} and was killed")),
        }
    }

    /// What is kept of its output.
    pub(crate) fn excerpt(&self) -> Excerpt<'_> {
        Excerpt {
            text: &self.output.text,
            is_whole: self.output.has_ended && !self.output.is_cut,
        }
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        self.reaper.kill(self.pid);
        if let Some(cgroup) = self.confinement.cgroup() {
            // Without the group's file all ends with the workload.
            let _ = cgroup.kill(self.side);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_told_by_their_end() {
        let limit = Duration::from_secs(5);
        let outcome = |status| Outcome {
            status,
            output: Output::default(),
        };
        let good = outcome(Some(ExitStatus::Code(0)));
        assert_eq!(good.complaint(limit), None);
        let failed = outcome(Some(ExitStatus::Code(7)));
        assert_eq!(
            failed.complaint(limit).unwrap(),
            "it ended with exit code 7"
        );
        let late = outcome(None);
        assert!(late.complaint(limit).unwrap().contains("within 5s"));
    }
}
