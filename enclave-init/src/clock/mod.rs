//! The clock: set once at boot, slewed from then on, from the hypervisor and
//! never from the parent. `docs/time.md` says what it promises.

mod belief;
mod discipline;
mod hypervisor;
mod keeper;
mod kernel;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use link::Text;
use link::control::{ClockState, FromInit};
use nsm::{NsmError, unverified_timestamp_ms};
use tokio::time::timeout;

use crate::security_module::SecurityModule;
use belief::{Belief, Nanos};
use discipline::{Decision, Discipline, Limits, Source, Standing};
use hypervisor::HypervisorClock;

pub(crate) use hypervisor::Device;
pub(crate) use keeper::{Line, keep};

/// How wrong an oscillator can be that the hypervisor stands for, and how much
/// faster or slower the clock may run than that, in parts per billion.
const DRIFT: i64 = 200_000;
const RATE: i64 = 500_000;
/// The same for an emulated one: it loses percents when its host is busy.
const EMULATED_DRIFT: i64 = 100_000_000;
const EMULATED_RATE: i64 = 50_000_000;
/// How often a source that nobody else confirms must insist that the machine was
/// stopped. An emulated one is stopped by its host all the time.
const CONFIRMATIONS: u32 = 3;
const EMULATED_CONFIRMATIONS: u32 = 1;
/// The module's timestamps count milliseconds.
const MODULE_RESOLUTION: Nanos = 1_000_000;
/// How long the module may take for a document.
const MODULE_TIMEOUT: Duration = Duration::from_secs(10);

/// The enclave's clock; each part of the init that needs it has a clone.
#[derive(Debug, Clone)]
pub(crate) struct Clock(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    discipline: Mutex<Discipline>,
    /// The hypervisor's clock, or why there is none.
    hypervisor: Result<HypervisorClock, String>,
    /// The name of the oscillator that the kernel uses.
    oscillator: String,
    limits: Limits,
    nsm: SecurityModule,
}

/// What came of asking a source.
struct Asked {
    lines: Vec<Line>,
    /// Who has to be asked as well.
    confirm: Option<Source>,
}

/// What is known of the clock at a moment.
#[derive(Debug)]
pub(crate) struct Report {
    /// Nanoseconds of Unix time.
    pub(crate) time: Nanos,
    /// How wrong that is at most, in nanoseconds.
    pub(crate) error: Option<Nanos>,
    pub(crate) state: ClockState,
    /// What it follows, or followed last.
    pub(crate) source: Option<Source>,
    pub(crate) sources: [(Source, Standing); 2],
    pub(crate) pauses: u64,
    pub(crate) detail: String,
}

impl Clock {
    /// Sets the clock, from the hypervisor or else from the security module. A
    /// machine where neither says the time keeps the clock that it has.
    pub(crate) async fn set(
        device: Result<Device, String>,
        nsm: SecurityModule,
        is_simulated: bool,
    ) -> (Self, Vec<Line>) {
        let hypervisor = device.and_then(Device::identify);
        let oscillator = kernel::base();
        let limits = limits(&oscillator, hypervisor.is_ok(), is_simulated);
        let clock = Self(Arc::new(Inner {
            discipline: Mutex::new(Discipline::new(limits)),
            hypervisor,
            oscillator,
            limits,
            nsm,
        }));
        let mut lines = Vec::new();
        for source in Source::ALL {
            if clock.report().is_ok_and(|report| report.source.is_none()) {
                lines.extend(clock.ask(source).await.lines);
            }
        }
        clock.discipline().end_boot();
        (clock, lines)
    }

    /// What is known now.
    pub(crate) fn report(&self) -> io::Result<Report> {
        let now = kernel::read()?;
        let discipline = self.discipline();
        let state = discipline.state(now);
        let sources = Source::ALL.map(|source| (source, discipline.standing(source, now)));
        Ok(Report {
            time: now.wall,
            error: discipline.error(now),
            state,
            source: discipline.source(now),
            sources,
            pauses: discipline.pauses(),
            detail: self.detail(state, &sources),
        })
    }

    /// Why the clock is nothing to judge certificates by, if it is not.
    pub(crate) fn no_time(&self) -> Option<&'static str> {
        // A clock that cannot be read is none.
        let state = self.report().map(|report| report.state);
        no_time(state.unwrap_or(ClockState::NoSource))
    }

    /// The time in milliseconds since 1970, if the clock is known to be right.
    pub(crate) fn known_ms(&self) -> Option<u64> {
        let report = self.report().ok()?;
        if report.state != ClockState::Synchronised {
            return None;
        }
        u64::try_from(report.time / 1_000_000).ok()
    }

    /// The name of the oscillator that the kernel uses.
    pub(crate) fn oscillator(&self) -> &str {
        &self.0.oscillator
    }

    /// Why the hypervisor's clock is not read, if it is not.
    pub(crate) fn missing(&self) -> Option<&str> {
        self.0.hypervisor.as_ref().err().map(String::as_str)
    }

    /// Whether its oscillator is one that nothing vouches for.
    fn is_emulated(&self) -> bool {
        self.0.limits.drift == EMULATED_DRIFT
    }

    fn detail(&self, state: ClockState, sources: &[(Source, Standing); 2]) -> String {
        let contradicted = sources
            .iter()
            .find(|(_, standing)| standing.is_contradicted);
        let reason = match (state, contradicted) {
            (ClockState::Synchronised, _) => String::new(),
            (ClockState::Holdover, _) => "no source answers: its bound grows".to_owned(),
            (ClockState::NoSource, _) => "nothing says the time".to_owned(),
            (ClockState::Disagreement, Some((source, _))) => format!(
                "what {} says contradicts what is known, and nothing confirms it",
                source.name()
            ),
            (ClockState::Disagreement, None) => {
                "the clock is further from its source than its bound, and is slewed".to_owned()
            }
        };
        match self.missing() {
            Some(missing) if reason.is_empty() => missing.to_owned(),
            Some(missing) => format!("{reason}; {missing}"),
            None => reason,
        }
    }

    /// Asks a source, and does what follows.
    async fn ask(&self, source: Source) -> Asked {
        let sample = match (source, &self.0.hypervisor) {
            (Source::Module, _) => self.ask_module().await,
            (Source::Hypervisor, Ok(clock)) => clock.sample().map_err(|error| error.to_string()),
            (Source::Hypervisor, Err(missing)) => Err(missing.clone()),
        };
        let now = match kernel::read() {
            Ok(now) => now,
            Err(error) => {
                let line = Line::Error(format!("clock: cannot be read: {error}"));
                return Asked {
                    lines: vec![line],
                    confirm: None,
                };
            }
        };
        let (decision, failure) = {
            let mut discipline = self.discipline();
            match sample {
                Ok(sample) => (discipline.on_sample(source, sample, now), None),
                Err(error) => {
                    let was_answering = discipline.standing(source, now).answers;
                    let decision = discipline.on_failure(source, now);
                    (decision, was_answering.then_some(error))
                }
            }
        };
        let mut lines = Self::act(source, decision);
        lines.extend(failure.map(|error| {
            Line::Error(format!("clock: {} does not answer: {error}", source.name()))
        }));
        Asked {
            lines,
            confirm: decision.confirm,
        }
    }

    /// The timestamp of a document that is made now.
    async fn ask_module(&self) -> Result<Belief, String> {
        let asking = self.0.nsm.run(|nsm| {
            let nonce = nsm.clock_nonce()?;
            let unread = |error: io::Error| NsmError::Message(error.to_string());
            let before = kernel::raw().map_err(unread)?;
            let document = nsm.clock(&nonce)?;
            let after = kernel::raw().map_err(unread)?;
            Ok((before, after, document))
        });
        let asked = timeout(MODULE_TIMEOUT, asking).await;
        let (before, after, document) = asked
            .map_err(|_| "the security module does not answer".to_owned())?
            .map_err(|error| error.to_string())?;
        let time = unverified_timestamp_ms(&document).map_err(|error| error.to_string())?;
        let time = Nanos::from(time) * 1_000_000;
        hypervisor::plausible(time).map_err(|error| error.to_string())?;
        Ok(Belief::between(before, after, time, MODULE_RESOLUTION))
    }

    /// Does what was decided; says what somebody should know.
    fn act(source: Source, decision: Decision) -> Vec<Line> {
        let mut lines: Vec<_> = decision.notice.into_iter().map(Line::notice).collect();
        if let Some(step) = decision.step {
            lines.push(match kernel::step(step) {
                Ok(()) => Line::step(step, source),
                Err(error) => Line::Error(format!("clock: cannot be set: {error}")),
            });
        }
        lines
    }

    /// Has the kernel's clock run as it must.
    fn steer(&self) -> io::Result<()> {
        let now = kernel::read()?;
        let (rate, error) = {
            let mut discipline = self.discipline();
            discipline.on_tick(now);
            let is_synchronised = discipline.state(now) == ClockState::Synchronised;
            let error = discipline.error(now).filter(|_| is_synchronised);
            (discipline.rate(), error)
        };
        if self.0.limits.is_ours {
            kernel::slew(rate, error)?;
        }
        Ok(())
    }

    fn discipline(&self) -> MutexGuard<'_, Discipline> {
        self.0
            .discipline
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Report {
    /// The same for the agent.
    pub(crate) fn message(&self) -> FromInit {
        FromInit::Clock {
            state: self.state,
            source: Text::new(self.source.map_or("", Source::name)),
            error_us: self.error.map(microseconds),
            pauses: self.pauses,
            detail: Text::new(self.detail.as_str()),
        }
    }
}

/// Nanoseconds in microseconds, rounded up.
pub(crate) fn microseconds(time: Nanos) -> u64 {
    u64::try_from(time.saturating_add(999) / 1_000).unwrap_or(u64::MAX)
}

/// What the clock may do, by the oscillator's name. A time stamp counter is
/// calibrated by the hypervisor's word where it gives one, and by guess elsewhere.
fn limits(oscillator: &str, has_hypervisor: bool, is_simulated: bool) -> Limits {
    let is_exact = is_simulated
        || match oscillator {
            "kvm-clock" | "arch_sys_counter" => true,
            "tsc" => has_hypervisor,
            _ => false,
        };
    let (drift, rate, confirmations) = if is_exact {
        (DRIFT, RATE, CONFIRMATIONS)
    } else {
        (EMULATED_DRIFT, EMULATED_RATE, EMULATED_CONFIRMATIONS)
    };
    Limits {
        drift,
        rate,
        confirmations,
        is_ours: !is_simulated,
    }
}

/// Why a clock in this state is nothing to judge certificates by, if it is not.
fn no_time(state: ClockState) -> Option<&'static str> {
    match state {
        ClockState::Synchronised | ClockState::Holdover => None,
        ClockState::Disagreement => Some("the enclave's sources of time contradict each other"),
        ClockState::NoSource => Some("the enclave has no source of time"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_wide_only_where_the_oscillator_is_emulated() {
        let drift = |oscillator, has_hypervisor| limits(oscillator, has_hypervisor, false).drift;
        assert_eq!(drift("kvm-clock", false), DRIFT);
        assert_eq!(drift("tsc", true), DRIFT);
        assert_eq!(drift("tsc", false), EMULATED_DRIFT);
        assert_eq!(drift("jiffies", false), EMULATED_DRIFT);
        assert!(!limits("tsc", false, true).is_ours);
    }

    #[test]
    fn bounds_are_rounded_up() {
        assert_eq!(microseconds(1), 1);
        assert_eq!(microseconds(1_000), 1);
        assert_eq!(microseconds(Nanos::MAX), u64::MAX);
    }

    #[test]
    fn clock_without_a_source_gives_no_time_for_documents() {
        assert_eq!(no_time(ClockState::Synchronised), None);
        assert_eq!(no_time(ClockState::Holdover), None);
        assert!(no_time(ClockState::Disagreement).is_some());
        assert!(no_time(ClockState::NoSource).is_some());
    }
}
