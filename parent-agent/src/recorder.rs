//! What is known of an enclave, written down in the stream `system` each minute and
//! at its end: as metrics for CloudWatch, and, where something went wrong, as a
//! record that alarms count. Both take the way of all records, through spool and
//! sink, and so survive an outage of the service.

use std::sync::Arc;
use std::time::Duration;

use link::logs::LogStream;
use serde::Serialize;
use serde_json::json;
use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, interval};

use crate::clock::ClockStatus;
use crate::crash::Crash;
use crate::embedded_metrics::EmbeddedMetrics;
use crate::enclave::{Cause, Code, End};
use crate::spool::{Spool, now_us};
use crate::status::{Board, Status};
use crate::traffic::Counts;

const INTERVAL: Duration = Duration::from_secs(60);

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
}

impl Recorder {
    pub(crate) fn new(
        board: Arc<Board>,
        spool: Arc<Spool>,
        metrics: Option<EmbeddedMetrics>,
        has_remote: bool,
    ) -> Self {
        Self {
            board,
            spool,
            metrics,
            has_remote,
            measured: Totals::default(),
            told: Totals::default(),
        }
    }

    /// Records at once, then each minute, and a last time once the enclave has
    /// `ended`; without a last time if it goes on without this agent.
    pub(crate) async fn run(mut self, mut ended: oneshot::Receiver<Ended>) {
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => self.record(None).await,
                ended = &mut ended => {
                    if let Ok(ended) = ended {
                        self.record(Some(&ended)).await;
                    }
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
                self.measured = totals;
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
            self.told = totals;
        }
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
    let is_quiet = since.lost == 0 && since.oom_kills == 0 && since.pids_refused == 0;
    if is_quiet && ended.is_none() {
        return None;
    }
    let incidents = Incidents {
        log_records_lost: since.lost,
        oom_kills: since.oom_kills,
        pids_refused: since.pids_refused,
        crashes: since.crashes,
        ended,
    };
    Some(json!({ "incidents": incidents }).to_string())
}

/// What only grows. A record tells by how much since the last one: CloudWatch adds
/// up.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) restarts: u64,
    pub(crate) lost: u64,
    pub(crate) oom_kills: u64,
    pub(crate) pids_refused: u64,
    pub(crate) crashes: u64,
    pub(crate) clock_pauses: u64,
    pub(crate) egress: Carried,
    pub(crate) ingress: Carried,
}

/// One direction's traffic.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Carried {
    pub(crate) bytes: u64,
    pub(crate) joined: u64,
    pub(crate) refused: u64,
}

impl Totals {
    fn of(status: &Status, ended: Option<&Ended>) -> Self {
        let sinks = status.logs.sinks.iter();
        let lost = sinks.flat_map(|sink| sink.lost.values()).sum::<u64>();
        Self {
            restarts: status.restarts,
            lost: status.logs.lost_in_enclave().saturating_add(lost),
            oom_kills: status.limits.oom_kills,
            pids_refused: status.limits.pids_refused,
            crashes: ended.map_or(0, |ended| ended.crash.is_some().into()),
            clock_pauses: status.clock.as_ref().map_or(0, |clock| clock.pauses),
            egress: status
                .egress
                .iter()
                .map(|egress| egress.counts)
                .sum::<Counts>()
                .into(),
            ingress: status
                .ingress
                .iter()
                .map(|ingress| ingress.counts)
                .sum::<Counts>()
                .into(),
        }
    }

    fn since(&self, before: &Self) -> Self {
        Self {
            restarts: self.restarts.saturating_sub(before.restarts),
            lost: self.lost.saturating_sub(before.lost),
            oom_kills: self.oom_kills.saturating_sub(before.oom_kills),
            pids_refused: self.pids_refused.saturating_sub(before.pids_refused),
            crashes: self.crashes.saturating_sub(before.crashes),
            clock_pauses: self.clock_pauses.saturating_sub(before.clock_pauses),
            egress: self.egress.since(before.egress),
            ingress: self.ingress.since(before.ingress),
        }
    }
}

impl From<Counts> for Carried {
    fn from(counts: Counts) -> Self {
        Self {
            bytes: counts.bytes_in + counts.bytes_out,
            joined: counts.connections,
            refused: counts.refused,
        }
    }
}

impl Carried {
    fn since(self, before: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_sub(before.bytes),
            joined: self.joined.saturating_sub(before.joined),
            refused: self.refused.saturating_sub(before.refused),
        }
    }
}

#[cfg(test)]
mod tests {
    use link::EndCode;

    use super::*;

    #[test]
    fn what_grows_is_told_by_how_much_also_when_it_begins_anew() {
        let carried = |bytes| Carried {
            bytes,
            joined: 2 * bytes,
            refused: 3 * bytes,
        };
        let totals = |number| Totals {
            restarts: number,
            lost: number,
            oom_kills: number,
            pids_refused: number,
            crashes: number,
            clock_pauses: number,
            egress: carried(number),
            ingress: carried(number),
        };
        assert_eq!(totals(7).since(&totals(5)), totals(2));
        assert_eq!(totals(1).since(&totals(5)), Totals::default());
    }

    #[test]
    fn incidents_are_recorded_when_there_are_some_and_at_the_end() {
        assert_eq!(incidents(&Totals::default(), None), None);
        let since = Totals {
            lost: 3,
            oom_kills: 1,
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
