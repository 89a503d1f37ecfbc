//! How a workload ended, and with it the enclave.

use std::fmt::Display;

use link::EndCode;
use link::control::{EndCause, ExitStatus};
use manifest::WorkloadName;
use nix::libc;
use tokio::task::JoinSet;

use crate::workload::describe;

/// Why the workloads' supervision ended.
pub(crate) struct End {
    pub(crate) cause: EndCause,
    pub(crate) detail: String,
    /// The same for programs; none if it was orderly.
    pub(crate) code: Option<EndCode>,
    /// Which of several workloads has ended the enclave.
    pub(crate) workload: Option<WorkloadName>,
    pub(crate) outputs: Outputs,
}

impl End {
    /// As somebody asked.
    pub(crate) fn shutdown(outputs: Outputs) -> Self {
        Self {
            cause: EndCause::Shutdown,
            detail: "shut down as asked".to_owned(),
            code: None,
            workload: None,
            outputs,
        }
    }

    /// Without a workload's output.
    pub(super) fn failed(cause: EndCause, code: EndCode, detail: String) -> Self {
        Self {
            cause,
            detail,
            code: Some(code),
            workload: None,
            outputs: Outputs::default(),
        }
    }
}

/// The tasks that read workloads' output. Dropping them closes the pipes.
#[derive(Debug, Default)]
pub(crate) struct Outputs(Vec<JoinSet<()>>);

impl Outputs {
    /// Those of one run.
    pub(super) fn of(tasks: JoinSet<()>) -> Self {
        Self(vec![tasks])
    }

    /// Takes over those of another workload.
    pub(super) fn add(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    /// Waits until all that was written has been taken over, in a queue that may
    /// have to wait for the parent. Every writer must have ended.
    /// Cancellation safe.
    pub(crate) async fn finished(&mut self) {
        for tasks in &mut self.0 {
            while tasks.join_next().await.is_some() {}
        }
    }
}

/// What kept a workload from its first start, for people.
pub(super) fn in_boot(error: &impl Display) -> String {
    format!("boot step workload failed: {error}")
}

/// How a workload ended, for people.
pub(super) fn how(status: ExitStatus, code: Option<EndCode>) -> String {
    let how = describe(status);
    if code == Some(EndCode::WorkloadOutOfMemory) {
        return format!("{how}: its memory had run out");
    }
    how
}

/// What a workload's end is called; none if it was a good one. `oom` says whether
/// the kernel killed one of its processes for want of memory meanwhile.
pub(super) fn code(status: ExitStatus, oom: bool) -> Option<EndCode> {
    match status {
        ExitStatus::Code(0) => None,
        ExitStatus::Signal(libc::SIGKILL) if oom => Some(EndCode::WorkloadOutOfMemory),
        ExitStatus::Code(_) => Some(EndCode::WorkloadExitCode),
        ExitStatus::Signal(_) => Some(EndCode::WorkloadSignal),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_workloads_tell_memory_from_other_signals() {
        use EndCode::{WorkloadExitCode, WorkloadOutOfMemory, WorkloadSignal};
        for (status, is_out_of_memory, expected) in [
            (ExitStatus::Code(0), false, None),
            // A child was killed; the workload itself ended as it liked.
            (ExitStatus::Code(0), true, None),
            (ExitStatus::Code(1), true, Some(WorkloadExitCode)),
            (ExitStatus::Signal(15), true, Some(WorkloadSignal)),
            (ExitStatus::Signal(9), false, Some(WorkloadSignal)),
            (ExitStatus::Signal(9), true, Some(WorkloadOutOfMemory)),
        ] {
            assert_eq!(code(status, is_out_of_memory), expected, "{status:?}");
        }
        let killed = ExitStatus::Signal(9);
        let words = how(killed, code(killed, true));
        assert_eq!(words, "signal SIGKILL: its memory had run out");
    }
}
