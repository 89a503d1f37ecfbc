//! The log of an enclave that has ended, from its last records to the sinks.

use std::sync::Arc;
use std::time::Duration;

use crate::channels::logs::Logs;
use crate::logs::LastLines;
use crate::losses::LostRecords;
use crate::sink::Pipeline;

/// How long log records may take to arrive once the enclave has ended.
const LOGS_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the sinks may take for what is in the spool once the enclave has ended.
const SINKS_TIMEOUT: Duration = Duration::from_secs(10);
/// Lines of each stream shown after an unexpected end.
const LOG_TAIL: usize = 20;

/// A log to which only the agent still adds: the record of the end.
pub(super) struct EndedLogs {
    pipeline: Pipeline,
    logs: Arc<Logs>,
    lines: LastLines,
}

impl EndedLogs {
    /// Waits for the records that are under way.
    pub(super) async fn take(pipeline: Pipeline, logs: Arc<Logs>) -> Self {
        logs.drain(LOGS_TIMEOUT).await;
        let lines = pipeline.last_lines(logs.boot(), LOG_TAIL).await;
        // For the record of the end, which tells of losses.
        pipeline.telemetry().settle(logs.boot());
        Self {
            pipeline,
            logs,
            lines,
        }
    }

    /// Passes on what is in the spool; says the enclave's last lines, and what was
    /// lost.
    pub(super) async fn finish(self) -> (LastLines, LostRecords) {
        let telemetry = Arc::clone(self.pipeline.telemetry());
        self.pipeline.finish(SINKS_TIMEOUT).await;
        // Only now is the spool closed.
        telemetry.settle(self.logs.boot());
        (self.lines, LostRecords::of(&telemetry.read()))
    }
}
