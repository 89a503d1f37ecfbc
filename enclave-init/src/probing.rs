//! Whether the workload is well: probed for as long as it runs, and judged by how often in a
//! row it was not.

use std::future::pending;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use link::EndCode;
use link::control::HealthState;
use manifest::{Health, HealthProbe, Interval, OnUnhealthy};
use tokio::time::{Instant, sleep, timeout_at};

use crate::companion::Companions;
use crate::confinement::Side;
use crate::control::Handle;
use crate::health;
use crate::logs::Logs;
use crate::notifications::{News, Notifications};

/// How often a workload that is not ready yet is probed.
const STARTING_PROBE_INTERVAL: Duration = Duration::from_millis(50);
/// The same by a command, which takes time of the workload's.
const STARTING_COMMAND_INTERVAL: Duration = Duration::from_millis(500);

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

/// How a probe of the workload is made, and what is told of it.
pub(crate) struct Prober<'a> {
    pub(crate) health: Option<&'a Health>,
    pub(crate) handle: &'a Handle,
    pub(crate) logs: &'a Logs,
    pub(crate) companions: &'a Companions<'a>,
    /// What the workload says, if the image has it say so.
    pub(crate) notifications: Option<&'a Notifications>,
    /// Its main process.
    pub(crate) workload: BorrowedFd<'a>,
    pub(crate) elapsed_us: &'a dyn Fn() -> u64,
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
        let Some(health) = self.health else {
            self.set_healthy();
            return pending().await;
        };
        let ready_within = health.ready_within.as_duration();
        let mut reason = "no probe was answered".to_owned();
        let starting = self.until_ready(health, &mut reason);
        if timeout_at(Instant::now() + ready_within, starting)
            .await
            .is_err()
        {
            return Concern::NotReady(format!(
                "the workload was not ready within {}, which is workload.health.ready_within: {reason}",
                health.ready_within
            ));
        }
        self.set_healthy();
        if let (HealthProbe::Notify { watchdog }, Some(said)) = (&health.probe, self.notifications)
        {
            return self.listen(health, *watchdog, said).await;
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
                    if self.handle.health() != HealthState::Healthy {
                        self.set_healthy();
                    }
                }
                Err(reason) if tally.failed() => {
                    self.logs.health(format!("unhealthy: {reason}"));
                    self.handle
                        .set_health(HealthState::Unhealthy, reason.as_str());
                    if health.on_unhealthy != OnUnhealthy::Report {
                        return Concern::Unhealthy(format!("the workload is unhealthy: {reason}"));
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
    ) -> Concern {
        let Some(watchdog) = watchdog else {
            loop {
                self.tell(said.next().await);
            }
        };
        let mut is_due = Instant::now() + watchdog.as_duration();
        loop {
            match timeout_at(is_due, said.next()).await {
                Ok(News {
                    is_stopping: true, ..
                }) => {
                    self.logs.health("stopping");
                    return pending().await;
                }
                Ok(news) => {
                    if news.is_alive {
                        is_due = Instant::now() + watchdog.as_duration();
                        if self.handle.health() != HealthState::Healthy {
                            self.set_healthy();
                        }
                    }
                    self.tell(news);
                }
                Err(_) => {
                    is_due = Instant::now() + watchdog.as_duration();
                    let reason = format!("it has not said WATCHDOG=1 for {watchdog}");
                    self.logs.health(format!("unhealthy: {reason}"));
                    self.handle
                        .set_health(HealthState::Unhealthy, reason.as_str());
                    if health.on_unhealthy != OnUnhealthy::Report {
                        return Concern::Unhealthy(format!("the workload is unhealthy: {reason}"));
                    }
                }
            }
        }
    }

    /// Hands on the workload's own words, if they may leave.
    fn tell(&self, news: News) {
        if let Some(status) = news.status.filter(|_| self.logs.is_released()) {
            let status = self.logs.with_output("it says".to_owned(), Some(&status));
            self.handle.set_health(self.handle.health(), status);
        }
    }

    async fn until_ready(&self, health: &Health, last: &mut String) {
        if let Some(said) = self.notifications {
            "it has not said READY=1".clone_into(last);
            loop {
                let news = said.next().await;
                let is_ready = news.is_ready;
                self.tell(news);
                if is_ready {
                    return;
                }
            }
        }
        let pause = match health.probe {
            HealthProbe::Command(_) => STARTING_COMMAND_INTERVAL.min(health.interval.as_duration()),
            _ => STARTING_PROBE_INTERVAL,
        };
        while let Err(reason) = self.probe(health).await {
            last.clone_from(&reason);
            self.handle.set_health(HealthState::Starting, reason);
            sleep(pause).await;
        }
    }

    async fn probe(&self, health: &Health) -> Result<(), String> {
        let limit = health.timeout.as_duration();
        match &health.probe {
            HealthProbe::Command(command) => {
                let started = self
                    .companions
                    .start(Side::Probe, self.workload, command)
                    .map_err(|error| error.to_string())?;
                let outcome = started.outcome(limit).await;
                match outcome.complaint(limit) {
                    None => Ok(()),
                    Some(complaint) => Err(self.logs.with_output(complaint, outcome.first_line())),
                }
            }
            probe => health::probe(probe, limit).await,
        }
    }

    fn set_healthy(&self) {
        self.logs.health("healthy");
        self.handle.set_health(HealthState::Healthy, "");
        self.handle.set_ready((self.elapsed_us)());
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
