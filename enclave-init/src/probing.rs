//! Whether the workload is well: probed for as long as it runs, and judged by how often in a
//! row it was not.

use std::future::pending;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use link::EndCode;
use link::control::HealthState;
use manifest::{Health, HealthProbe, Interval, OnUnhealthy, Workload};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use crate::companion::Companions;
use crate::conditions::Condition;
use crate::confinement::Side;
use crate::health;
use crate::logs::{Excerpt, Logs};
use crate::network::Namespace;
use crate::notifications::Notifications;
use crate::readiness::News;

/// How often a workload that is not ready yet is probed.
const STARTING_PROBE_INTERVAL: Duration = Duration::from_millis(50);
/// The same by a command, which takes time of the workload's.
const STARTING_COMMAND_INTERVAL: Duration = Duration::from_millis(500);

/// Between two statuses of the workload's own at least; of those between the last is told.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);

/// What has to be done about the workload.
#[derive(Debug)]
pub(crate) enum Concern {
    /// It was not ready in time.
    NotReady(String),
    /// It is unhealthy, and is not to go on.
    Unhealthy(String),
}

impl Concern {
    /// The same for programs.
    pub(crate) fn code(&self) -> EndCode {
        match self {
            Self::NotReady(_) => EndCode::WorkloadNotReady,
            Self::Unhealthy(_) => EndCode::WorkloadUnhealthy,
        }
    }

    /// The same for people.
    pub(crate) fn reason(&self) -> &str {
        match self {
            Self::NotReady(reason) | Self::Unhealthy(reason) => reason,
        }
    }
}

/// Probes the workload or hears it, and tells what comes of it.
pub(crate) struct Prober<'a> {
    pub(crate) workload: &'a Workload,
    pub(crate) condition: Condition<'a>,
    pub(crate) logs: &'a Logs,
    pub(crate) companions: &'a Companions<'a>,
    /// The workload's.
    pub(crate) network: &'a Namespace,
    /// What the workload says, if the image has it say so.
    pub(crate) notifications: Option<&'a Notifications>,
    /// Its main process.
    pub(crate) process: BorrowedFd<'a>,
    pub(crate) elapsed_us: &'a dyn Fn() -> u64,
}

/// The workload's own words on their way.
#[derive(Debug)]
struct Status {
    waiting: Option<Vec<u8>>,
    /// The next may be told from then on.
    from: Instant,
}

impl Status {
    fn new() -> Self {
        Self {
            waiting: None,
            from: Instant::now(),
        }
    }
}

/// Failures in a row.
#[derive(Debug)]
struct Tally {
    allowed: u32,
    failed: u32,
}

impl Tally {
    fn succeeded(&mut self) {
        self.failed = 0;
    }

    /// Counts a failure; true if the workload is unhealthy by now.
    fn failed(&mut self) -> bool {
        self.failed = self.failed.saturating_add(1);
        self.failed >= self.allowed
    }
}

impl Prober<'_> {
    /// Probes the workload, from its start on, until something has to be done about it.
    pub(crate) async fn watch(&self) -> Concern {
        let Some(health) = &self.workload.health else {
            self.set_healthy();
            return pending().await;
        };
        let ready_within = health.ready_within.as_duration();
        let mut reason = "no probe was answered".to_owned();
        let mut status = Status::new();
        let starting = self.until_ready(health, &mut reason, &mut status);
        if timeout_at(Instant::now() + ready_within, starting)
            .await
            .is_err()
        {
            return Concern::NotReady(format!(
                "{} was not ready within {}, which is workload.health.ready_within: {reason}",
                self.workload.subject(),
                health.ready_within
            ));
        }
        self.set_healthy();
        if let (HealthProbe::Notify { watchdog }, Some(said)) = (&health.probe, self.notifications)
        {
            return self.listen(health, *watchdog, said, status).await;
        }
        let mut tally = Tally {
            allowed: health.failures,
            failed: 0,
        };
        loop {
            sleep(health.interval.as_duration()).await;
            match self.probe(health).await {
                Ok(()) => {
                    tally.succeeded();
                    if self.condition.health() != HealthState::Healthy {
                        self.set_healthy();
                    }
                }
                Err(reason) if tally.failed() => {
                    self.logs.health(format!("unhealthy: {reason}"));
                    self.condition
                        .set_health(HealthState::Unhealthy, reason.as_str());
                    if health.on_unhealthy != OnUnhealthy::Report {
                        return Concern::Unhealthy(self.unhealthy(&reason));
                    }
                }
                Err(reason) => self.logs.health(format!(
                    "probe failed, {} of {} in a row: {reason}",
                    tally.failed, tally.allowed
                )),
            }
        }
    }

    /// Hears a workload that says itself that it is alive.
    async fn listen(
        &self,
        health: &Health,
        watchdog: Option<Interval>,
        said: &Notifications,
        mut status: Status,
    ) -> Concern {
        let Some(watchdog) = watchdog else {
            loop {
                self.hear(said, &mut status).await;
            }
        };
        let mut is_due = Instant::now() + watchdog.as_duration();
        let mut is_stopping = false;
        loop {
            match timeout_at(is_due, self.hear(said, &mut status)).await {
                Ok(_) if is_stopping => {}
                Ok(news) if news.is_stopping => {
                    self.logs.health("stopping");
                    is_stopping = true;
                    is_due = Instant::now() + self.workload.stop_grace.as_duration();
                }
                Ok(news) => {
                    if news.is_alive {
                        is_due = Instant::now() + watchdog.as_duration();
                        if self.condition.health() != HealthState::Healthy {
                            self.set_healthy();
                        }
                    }
                }
                Err(_) => {
                    is_due = Instant::now() + watchdog.as_duration();
                    let reason = if is_stopping {
                        let grace = self.workload.stop_grace;
                        format!(
                            "it has said STOPPING=1 and has not ended within {grace}, which is workload.stop_grace"
                        )
                    } else {
                        format!("it has not said WATCHDOG=1 for {watchdog}")
                    };
                    // One that goes on after all is watched again.
                    is_stopping = false;
                    self.logs.health(format!("unhealthy: {reason}"));
                    self.condition
                        .set_health(HealthState::Unhealthy, reason.as_str());
                    if health.on_unhealthy != OnUnhealthy::Report {
                        return Concern::Unhealthy(self.unhealthy(&reason));
                    }
                }
            }
        }
    }

    /// The next message, and meanwhile hands on the workload's own words: not in the place of
    /// the reason why it is unhealthy. Cancellation safe.
    async fn hear(&self, said: &Notifications, status: &mut Status) -> News {
        loop {
            let may_tell = self.condition.health() != HealthState::Unhealthy;
            tokio::select! {
                mut news = said.next() => {
                    if let Some(words) = news.status.take() {
                        status.waiting = Some(words);
                    }
                    return news;
                }
                () = sleep_until(status.from), if may_tell && status.waiting.is_some() => {
                    if let Some(words) = status.waiting.take() {
                        self.tell(&words);
                    }
                    status.from = Instant::now() + STATUS_INTERVAL;
                }
            }
        }
    }

    /// Hands on the workload's own words, if they may leave.
    fn tell(&self, words: &[u8]) {
        if self.logs.is_released() {
            let words = Excerpt {
                text: words,
                is_whole: true,
            };
            let detail = self.logs.with_output("it says".to_owned(), words);
            self.condition.set_health(self.condition.health(), detail);
        }
    }

    async fn until_ready(&self, health: &Health, last: &mut String, status: &mut Status) {
        if let Some(said) = self.notifications {
            "it has not said READY=1".clone_into(last);
            while !self.hear(said, status).await.is_ready {}
            return;
        }
        let pause = match health.probe {
            HealthProbe::Command(_) => STARTING_COMMAND_INTERVAL.min(health.interval.as_duration()),
            _ => STARTING_PROBE_INTERVAL,
        };
        while let Err(reason) = self.probe(health).await {
            last.clone_from(&reason);
            self.condition.set_health(HealthState::Starting, reason);
            sleep(pause).await;
        }
    }

    async fn probe(&self, health: &Health) -> Result<(), String> {
        let limit = health.timeout.as_duration();
        match &health.probe {
            HealthProbe::Command(command) => {
                let started = self
                    .companions
                    .start(Side::Probe, self.process, command)
                    .map_err(|error| error.to_string())?;
                let outcome = started.outcome(limit).await;
                match outcome.complaint(limit) {
                    None => Ok(()),
                    Some(complaint) => Err(self.logs.with_output(complaint, outcome.excerpt())),
                }
            }
            probe => health::probe(probe, limit, self.network).await,
        }
    }

    fn unhealthy(&self, reason: &str) -> String {
        format!("{} is unhealthy: {reason}", self.workload.subject())
    }

    fn set_healthy(&self) {
        self.logs.health("healthy");
        self.condition.set_health(HealthState::Healthy, "");
        self.condition.set_ready((self.elapsed_us)());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_is_lost_by_failures_in_a_row() {
        let mut tally = Tally {
            allowed: 3,
            failed: 0,
        };
        assert!(!tally.failed());
        assert!(!tally.failed());
        tally.succeeded();
        assert!(!tally.failed());
        assert!(!tally.failed());
        assert!(tally.failed());
        // It stays so until a probe succeeds.
        assert!(tally.failed());
    }
}
