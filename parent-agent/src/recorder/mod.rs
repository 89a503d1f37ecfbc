//! What is known of an enclave, written down in the stream `system` each minute and
//! at its end: as metrics for CloudWatch, and, where something went wrong, as a
//! record that alarms count. Both take the way of all records, through spool and
//! sink, and so survive an outage of the service.

mod embedded_metrics;
mod totals;

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use link::logs::LogStream;
use log_spool::{Spool, now_us};
use serde::Serialize;
use serde_json::json;
use tokio::sync::{oneshot, watch};
use tokio::time::{MissedTickBehavior, interval};

use crate::clock::ClockStatus;
use crate::crash::Crash;
use crate::enclave::{Cause, Code, End};
use crate::history::{History, Reported};
use crate::metrics::MetricsAddress;
use crate::status::Board;

pub(crate) use embedded_metrics::{EmbeddedMetrics, MetricsNamespace};

use totals::Totals;

const INTERVAL: Duration = Duration::from_secs(60);

/// Where metrics go.
#[derive(Debug, Args)]
#[command(next_help_heading = "Logs")]
pub struct MetricsArgs {
    /// Serve Prometheus metrics over HTTP at this loopback address.
    #[arg(long = "metrics", value_name = "ADDR:PORT")]
    pub address: Option<MetricsAddress>,
    /// Have CloudWatch make metrics in this namespace, from a record each minute in
    /// the embedded metric format (with the sink cloudwatch).
    #[arg(long = "metrics-namespace", value_name = "NAMESPACE")]
    pub namespace: Option<MetricsNamespace>,
}

/// Who gets metrics.
#[derive(Debug)]
pub(crate) struct MetricsConfig {
    /// Where they are served for Prometheus.
    pub(crate) address: Option<MetricsAddress>,
    /// What CloudWatch makes of them.
    pub(crate) embedded: Option<EmbeddedMetrics>,
}

/// How an enclave ended, for programs.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Ended {
    cause: Cause,
    #[serde(skip_serializing_if = "Option::is_none")]
    crash: Option<Crash>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<Code>,
}

impl Ended {
    pub(crate) fn new(end: &End, crash: Option<Crash>) -> Self {
        Self {
            cause: end.cause,
            crash,
            code: end.code.clone(),
        }
    }

    pub(crate) fn is_crash(&self) -> bool {
        self.crash.is_some()
    }
}

/// Writes the records.
pub(crate) struct Recorder {
    board: Arc<Board>,
    spool: Arc<Spool>,
    /// Whose metrics CloudWatch makes, if it is asked to.
    metrics: Option<EmbeddedMetrics>,
    /// Whether anybody but the reader of standard output gets the records.
    has_remote: bool,
    /// What the last metrics, and the last record of what went wrong, told of.
    measured: Totals,
    told: Totals,
    /// Where that goes for the next agent, which tells of the rest.
    history: watch::Sender<History>,
}

impl Recorder {
    pub(crate) fn new(
        board: Arc<Board>,
        spool: Arc<Spool>,
        metrics: Option<EmbeddedMetrics>,
        has_remote: bool,
        history: watch::Sender<History>,
    ) -> Self {
        let reported = history.borrow().reported;
        Self {
            board,
            spool,
            metrics,
            has_remote,
            measured: reported.metrics.into(),
            told: reported.incidents.into(),
            history,
        }
    }

    /// Records at once, then each minute, and a last time once the enclave has
    /// `ended`, or goes on without this agent, whose own counts end with it.
    pub(crate) async fn run(mut self, mut ended: oneshot::Receiver<Ended>) {
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => self.record(None).await,
                ended = &mut ended => {
                    self.record(ended.as_ref().ok()).await;
                    return;
                }
            }
        }
    }

    async fn record(&mut self, ended: Option<&Ended>) {
        let status = self.board.read();
        let totals = Totals::of(&status, ended);
        if let Some(metrics) = &self.metrics {
            let since = totals.since(&self.measured);
            let record = metrics.record(&status, &since, now_us() / 1000);
            // What finds no room is told the next time.
            if self.note(record.to_string()).await {
                self.measured = self.measured.max(&totals);
            }
        }
        let clock = status.clock.as_ref().filter(|_| ended.is_none());
        if let Some(record) = clock.and_then(ClockStatus::record)
            && self.has_remote
        {
            self.note(record).await;
        }
        if let Some(record) = incidents(&totals.since(&self.told), ended)
            && self.has_remote
            && self.note(record).await
        {
            self.told = self.told.max(&totals);
        }
        self.remember();
    }

    /// Has the next agent know what was told, also if this one is killed.
    fn remember(&self) {
        let reported = Reported {
            metrics: self.measured.life,
            incidents: self.told.life,
        };
        self.board.update(|live| live.reported = reported);
        self.board.remember(&self.history);
    }

    async fn note(&self, record: String) -> bool {
        self.spool.note(LogStream::System, record).await
    }
}

/// What went wrong since the record before.
#[derive(Debug, Serialize)]
pub(crate) struct Incidents<'a> {
    /// Log records that were lost, in the enclave or on the way to a sink.
    pub log_records_lost: u64,
    /// Processes of the workload that were killed because memory had run out.
    pub oom_kills: u64,
    /// Processes and threads that the workload was refused.
    pub pids_refused: u64,
    /// 1 if the enclave has crashed.
    pub crashes: u64,
    /// How it ended, if it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    ended: Option<&'a Ended>,
}

/// The record, if anything went wrong, or the enclave has ended.
fn incidents(since: &Totals, ended: Option<&Ended>) -> Option<String> {
    let (lost, life) = (since.lost(), &since.life);
    let is_quiet = lost == 0 && life.oom_kills == 0 && life.pids_refused == 0;
    if is_quiet && ended.is_none() {
        return None;
    }
    let incidents = Incidents {
        log_records_lost: lost,
        oom_kills: life.oom_kills,
        pids_refused: life.pids_refused,
        crashes: since.crashes,
        ended,
    };
    Some(json!({ "incidents": incidents }).to_string())
}

#[cfg(test)]
mod tests {
    use link::EndCode;

    use super::*;
    use crate::history::LifeTotals;

    #[test]
    fn incidents_are_recorded_when_there_are_some_and_at_the_end() {
        assert_eq!(incidents(&Totals::default(), None), None);
        let since = Totals {
            life: LifeTotals {
                lost: 1,
                oom_kills: 1,
                ..LifeTotals::default()
            },
            undelivered: 2,
            crashes: 1,
            ..Totals::default()
        };
        let ended = Ended {
            cause: Cause::WorkloadFailed,
            crash: Some(Crash::OutOfMemory),
            code: Some(EndCode::WorkloadOutOfMemory.into()),
        };
        let record = incidents(&since, Some(&ended)).unwrap();
        let record: serde_json::Value = serde_json::from_str(&record).unwrap();
        let expected = json!({"incidents": {
            "log_records_lost": 3, "oom_kills": 1, "pids_refused": 0, "crashes": 1,
            "ended": {
                "cause": "workload-failed", "crash": "out-of-memory",
                "code": "workload.out-of-memory",
            },
        }});
        assert_eq!(record, expected);
    }
}
