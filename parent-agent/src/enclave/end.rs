//! How an enclave can end.

use std::fmt;

use link::EndCode;
use link::control::{EndCause, ExitStatus};
use manifest::WorkloadName;
use serde::{Deserialize, Serialize};

use super::code::Code;
use crate::exit::Exit;

/// What an end was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// It was told to stop, and did.
    Stopped,
    /// The workload ended with code 0.
    WorkloadFinished,
    /// The workload failed for good.
    WorkloadFailed,
    /// It never became ready.
    BootFailed,
    /// It ended, or fell silent, without a word.
    Died,
    /// It did not stop in time.
    Killed,
}

impl Cause {
    /// The exit code of `run`.
    pub const fn exit(self) -> Exit {
        match self {
            Self::Stopped | Self::WorkloadFinished => Exit::Success,
            Self::WorkloadFailed => Exit::WorkloadFailed,
            Self::BootFailed => Exit::BootFailed,
            Self::Died => Exit::Died,
            Self::Killed => Exit::Killed,
        }
    }

    /// Whether the end was one to be expected, so that nobody asks for the console.
    pub const fn is_expected(self) -> bool {
        matches!(self, Self::Stopped | Self::WorkloadFinished)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Stopped => "stopped",
            Self::WorkloadFinished => "workload finished",
            Self::WorkloadFailed => "workload failed",
            Self::BootFailed => "boot failed",
            Self::Died => "died",
            Self::Killed => "killed",
        })
    }
}

/// How an enclave ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// Its kind.
    pub cause: Cause,
    /// The same for people, in one line.
    pub detail: String,
    /// The same for programs, if the enclave has said why.
    pub code: Option<Code>,
    /// Whether it was given up because nothing was heard of it.
    pub is_silence: bool,
    /// Whether its kernel has panicked.
    pub is_panic: bool,
}

impl End {
    pub(crate) fn new(cause: Cause, detail: String) -> Self {
        Self {
            cause,
            detail,
            code: None,
            is_silence: false,
            is_panic: false,
        }
    }
}

/// What the init gave as the reason of its end.
#[derive(Debug, Clone)]
pub(super) struct Announced {
    pub(super) cause: EndCause,
    pub(super) words: String,
    pub(super) code: Option<Code>,
    /// Which of several workloads has ended it.
    pub(super) workload: Option<WorkloadName>,
}

/// The end that the init has announced, with its own words where the cause
/// alone does not say what happened.
pub(super) fn announced(announced: Announced) -> End {
    let Announced {
        cause,
        words,
        code,
        workload,
    } = announced;
    let workload = match workload {
        Some(name) => format!("the workload {name}"),
        None => "the workload".to_owned(),
    };
    let is = |known| code.as_ref().is_some_and(|code: &Code| code.is(known));
    let is_out_of_memory = is(EndCode::WorkloadOutOfMemory);
    let (cause, detail) = match cause {
        EndCause::Shutdown => (Cause::Stopped, "as asked".to_owned()),
        // However it ended once it was stopped for it.
        EndCause::WorkloadExited(_)
            if is(EndCode::WorkloadUnhealthy) || is(EndCode::WorkloadNotReady) =>
        {
            (Cause::WorkloadFailed, words)
        }
        EndCause::WorkloadExited(ExitStatus::Code(0)) => (
            Cause::WorkloadFinished,
            format!("{workload} ended with code 0"),
        ),
        EndCause::WorkloadExited(ExitStatus::Code(code)) => (
            Cause::WorkloadFailed,
            format!("{workload} ended with code {code}"),
        ),
        EndCause::WorkloadExited(ExitStatus::Signal(_)) if is_out_of_memory => (
            Cause::WorkloadFailed,
            format!("{workload} was killed because its memory had run out"),
        ),
        EndCause::WorkloadExited(ExitStatus::Signal(signal)) => (
            Cause::WorkloadFailed,
            format!("{workload} was killed by signal {signal}"),
        ),
        EndCause::BootFailed => (Cause::BootFailed, words),
        EndCause::InitFailed => (Cause::Died, format!("the init failed: {words}")),
    };
    End {
        code,
        ..End::new(cause, detail)
    }
}
