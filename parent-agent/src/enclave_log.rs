//! The log of one enclave, from its first record to the record of its end: what
//! the enclave hands over and what the agent adds, through the spool to the sinks.

use std::sync::Arc;
use std::time::Duration;

use aws_smithy_runtime_api::client::dns::SharedDnsResolver;
use log_sinks::losses::LostRecords;
use log_sinks::telemetry::Telemetry;
use log_sinks::{Pipeline, PipelineConfig, PipelineError};
use log_spool::LastLines;
use manifest::EnclaveName;
use name_resolver::Names;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::channels::logs::Logs;
use crate::crash::{Crash, keep_end};
use crate::enclave::End;
use crate::history::History;
use crate::recorder::{EmbeddedMetrics, Ended, Recorder};
use crate::report::{Report, Reporter};
use crate::status::Board;

/// How long the sinks may take for what is in the spool when the enclave goes on: the
/// next agent's do the rest.
const DETACH_TIMEOUT: Duration = Duration::from_secs(1);
/// How long it may take to record the enclave's end in its log.
const RECORD_TIMEOUT: Duration = Duration::from_secs(1);
/// How long log records may take to arrive once the enclave has ended.
const LOGS_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the sinks may take for what is in the spool once the enclave has ended.
const SINKS_TIMEOUT: Duration = Duration::from_secs(10);
/// Lines of each stream shown after an unexpected end.
const LOG_TAIL: usize = 20;

/// The log of an enclave that runs.
pub(crate) struct EnclaveLog {
    name: EnclaveName,
    pipeline: Pipeline,
    logs: Arc<Logs>,
}

/// The agent's own records, until the one of the end.
pub(crate) struct Recording {
    task: JoinHandle<()>,
    last: oneshot::Sender<Ended>,
}

/// What is left of an enclave that has ended.
pub(crate) struct Remains {
    name: EnclaveName,
    crash: Option<Crash>,
    console: Vec<String>,
    lines: LastLines,
    lost: LostRecords,
}

impl EnclaveLog {
    /// Opens the spool and starts the sinks.
    pub(crate) async fn open(
        config: PipelineConfig,
        name: &EnclaveName,
        reporter: &Reporter,
    ) -> Result<Self, PipelineError> {
        let stdout = reporter.stdout().clone();
        let names = SharedDnsResolver::new(Names::from_system());
        let pipeline = Pipeline::open(config, name, stdout, reporter.is_json(), names).await?;
        Ok(Self {
            name: name.clone(),
            logs: Arc::new(Logs::new(Arc::clone(pipeline.spool()))),
            pipeline,
        })
    }

    /// What takes the enclave's records.
    pub(crate) fn logs(&self) -> &Arc<Logs> {
        &self.logs
    }

    /// What is known of the log itself.
    pub(crate) fn telemetry(&self) -> &Arc<Telemetry> {
        self.pipeline.telemetry()
    }

    /// Adds the agent's own records, until the log is left or the enclave has ended.
    pub(crate) fn record(
        &self,
        board: &Arc<Board>,
        metrics: Option<EmbeddedMetrics>,
        history: watch::Sender<History>,
    ) -> Recording {
        let recorder = Recorder::new(
            Arc::clone(board),
            Arc::clone(self.pipeline.spool()),
            metrics,
            self.pipeline.has_remote(),
            history,
        );
        let (last, is_last) = oneshot::channel();
        Recording {
            task: tokio::spawn(recorder.run(is_last)),
            last,
        }
    }

    /// Leaves the log to the next agent, which opens the same spool.
    pub(crate) async fn leave(self, recording: Recording) {
        recording.finish(None).await;
        self.pipeline.finish(DETACH_TIMEOUT).await;
    }

    /// Takes in the records that are under way, adds the one of the `end`, if it is
    /// known, and passes on what is in the spool. `console` are the last lines of
    /// that.
    pub(crate) async fn end(
        self,
        recording: Recording,
        end: Option<&End>,
        console: Vec<String>,
    ) -> Remains {
        let Self {
            name,
            pipeline,
            logs,
        } = self;
        logs.drain(LOGS_TIMEOUT).await;
        let lines = pipeline.last_lines(logs.boot(), LOG_TAIL).await;
        let telemetry = Arc::clone(pipeline.telemetry());
        // For the record of the end, which tells of losses.
        telemetry.settle(logs.boot());
        let crash = end.and_then(|end| Crash::of(end, &console));
        recording
            .finish(end.map(|end| Ended::new(end, crash)))
            .await;
        pipeline.finish(SINKS_TIMEOUT).await;
        // Only now is the spool closed.
        telemetry.settle(logs.boot());
        Remains {
            name,
            crash,
            console,
            lines,
            lost: telemetry.read().lost_records(),
        }
    }
}

impl Recording {
    /// Has the recorder, which knows that it is the end, write its last record.
    async fn finish(self, ended: Option<Ended>) {
        let Self { mut task, last } = self;
        match ended {
            // The task ends only with this one.
            Some(ended) => drop(last.send(ended)),
            None => drop(last),
        }
        if timeout(RECORD_TIMEOUT, &mut task).await.is_err() {
            task.abort();
            // It ends as it is aborted, and the history with it.
            let _ = task.await;
        }
    }
}

impl Remains {
    /// Keeps how the enclave ended for those who come later, and reports it.
    pub(crate) async fn report(mut self, end: &End, uptime: Duration, reporter: &Reporter) {
        if end.cause.is_expected() {
            self.lines.clear();
            self.console.clear();
        }
        let lost = self.lost.clone();
        keep_end(&self.name, end, self.crash, uptime, lost, &self.console).await;
        reporter
            .last(&Report::Ended {
                cause: end.cause,
                crash: self.crash,
                code: end.code.as_ref(),
                detail: &end.detail,
                exit_code: end.cause.exit() as u8,
                console: &self.console,
                logs: &self.lines,
                lost: &self.lost,
            })
            .await;
    }
}
