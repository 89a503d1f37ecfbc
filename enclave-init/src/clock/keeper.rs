//! The task that keeps the clock: asks the sources in their turn, steers, and
//! tells the agent and the log.

use std::time::Duration;

use link::control::ClockState;
use tokio::time::{Instant, sleep};

use super::belief::Nanos;
use super::discipline::{FRESH, Notice, Source};
use super::{Clock, Report, microseconds};
use crate::control::Handle;
use crate::logs::Logs;

/// How often the hypervisor's clock is read, and the kernel's steered.
const INTERVAL: Duration = Duration::from_secs(1);
/// How late that may be before the machine must have been stopped meanwhile: the
/// init has nothing else to do that takes so long.
const MAX_LATE: Duration = Duration::from_secs(5);
/// How often the security module is asked: as a check; as the only source; while
/// sources contradict each other, or the only one follows an emulated oscillator.
const CHECK_INTERVAL: Duration = Duration::from_secs(300);
const MODULE_INTERVAL: Duration = Duration::from_secs(16);
const SHORT_INTERVAL: Duration = Duration::from_secs(4);
/// How long a clock must be beyond its bound before that is news: an emulated
/// oscillator on a busy host crosses it and comes back within seconds.
const SETTLING: Duration = Duration::from_secs(10);
/// How often the agent is told the bound of the error, which changes all the time.
const TELL_INTERVAL: Duration = Duration::from_secs(30);

/// A line for the log.
#[derive(Debug)]
pub(crate) enum Line {
    System(String),
    Error(String),
}

impl Line {
    fn write(&self, logs: &Logs) {
        match self {
            Self::System(text) => logs.system(text),
            Self::Error(text) => logs.error(text),
        }
    }

    pub(super) fn notice(notice: Notice) -> Self {
        Self::Error(match notice {
            Notice::Stopped(time) => format!(
                "clock: the machine was stopped for {} s, and its clock with it",
                seconds(time)
            ),
            Notice::WentBack(time) => format!(
                "clock: its sources went back by {} s; the clock is not set back but slewed",
                seconds(time)
            ),
            Notice::Contradicted(source, time) => format!(
                "clock: {} is {} s {} what is known, and has to be confirmed",
                source.name(),
                seconds(time.saturating_abs()),
                if time < 0 { "behind" } else { "ahead of" },
            ),
        })
    }

    pub(super) fn step(time: Nanos, source: Source) -> Self {
        Self::System(format!(
            "clock: set by {} s, as {} says",
            seconds(time),
            source.name()
        ))
    }
}

/// Writes what was said before there was a log, then keeps the clock until the
/// enclave ends.
pub(crate) async fn keep(clock: Clock, said: Vec<Line>, handle: Handle, logs: Logs) {
    for line in &said {
        line.write(&logs);
    }
    let mut module_due = Instant::now();
    let mut told = None;
    let mut beyond = None;
    loop {
        let is_due = Instant::now() >= module_due;
        let hypervisor = clock.missing().is_none().then_some(Source::Hypervisor);
        let module = is_due.then_some(Source::Module);
        if ask(&clock, hypervisor, module, &logs).await {
            module_due = Instant::now() + module_interval(&clock);
        }
        if let Err(error) = clock.steer() {
            logs.error(format!("clock: the kernel's cannot be steered: {error}"));
        }
        if let Ok(report) = clock.report()
            && is_settled(report.state, &mut beyond)
        {
            tell(&report, &mut told, &handle, &logs);
        }

        let begun = Instant::now();
        sleep(INTERVAL).await;
        let late = begun.elapsed().saturating_sub(INTERVAL);
        if late >= MAX_LATE {
            clock.discipline().on_gap();
            let late = late.as_secs_f64();
            logs.error(format!(
                "clock: the machine was not run for {late:.1} s; its oscillator went on"
            ));
            module_due = Instant::now();
        }
    }
}

/// Asks the sources; the one whose confirmation another needs as well. Says
/// whether the module was asked.
async fn ask(
    clock: &Clock,
    hypervisor: Option<Source>,
    module: Option<Source>,
    logs: &Logs,
) -> bool {
    let mut next = [hypervisor, module];
    let mut is_module_asked = false;
    // Each may have the other asked once.
    for _ in 0..3 {
        let Some(source) = next.iter_mut().find_map(Option::take) else {
            break;
        };
        let asked = clock.ask(source).await;
        asked.lines.iter().for_each(|line| line.write(logs));
        is_module_asked |= source == Source::Module;
        match asked.confirm {
            Some(Source::Hypervisor) if clock.missing().is_none() => {
                next[0] = Some(Source::Hypervisor);
            }
            Some(Source::Module) => next[1] = Some(Source::Module),
            _ => {}
        }
    }
    is_module_asked
}

/// In what time the module is asked again.
fn module_interval(clock: &Clock) -> Duration {
    let Ok(report) = clock.report() else {
        return MODULE_INTERVAL;
    };
    let [(_, hypervisor), (_, module)] = report.sources;
    if hypervisor.is_contradicted || module.is_contradicted {
        SHORT_INTERVAL
    } else if hypervisor.age.is_some_and(|age| age <= FRESH) {
        CHECK_INTERVAL
    } else if clock.is_emulated() {
        SHORT_INTERVAL
    } else {
        MODULE_INTERVAL
    }
}

/// What is told at once when it changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct News {
    state: ClockState,
    source: Option<Source>,
    pauses: u64,
}

/// Whether a state is to be told: a disagreement only once it has lasted. `beyond` is
/// since when there is one.
fn is_settled(state: ClockState, beyond: &mut Option<Instant>) -> bool {
    if state != ClockState::Disagreement {
        *beyond = None;
        return true;
    }
    beyond.get_or_insert_with(Instant::now).elapsed() >= SETTLING
}

/// Tells the agent and the log.
fn tell(report: &Report, told: &mut Option<(News, Instant)>, handle: &Handle, logs: &Logs) {
    let news = News {
        state: report.state,
        source: report.source,
        pauses: report.pauses,
    };
    let before = told.filter(|(before, _)| *before == news);
    if before.is_some_and(|(_, at)| at.elapsed() < TELL_INTERVAL) {
        return;
    }
    if before.is_none() {
        let line = describe(report);
        match report.state {
            ClockState::Synchronised => logs.system(line),
            _ => logs.error(line),
        }
    }
    handle.set_clock(report.message());
    *told = Some((news, Instant::now()));
}

fn describe(report: &Report) -> String {
    let source = report.source.map_or("none", Source::name);
    let error = report.error.map_or_else(
        || "unknown".to_owned(),
        |error| microseconds(error).to_string(),
    );
    let detail = match report.detail.as_str() {
        "" => String::new(),
        detail => format!(": {detail}"),
    };
    format!(
        "clock: state={} source={source} error_us={error} pauses={}{detail}",
        report.state.name(),
        report.pauses
    )
}

/// Seconds with three decimals.
fn seconds(time: Nanos) -> String {
    let sign = if time < 0 { "-" } else { "" };
    let milliseconds = time.unsigned_abs() / 1_000_000;
    format!("{sign}{}.{:03}", milliseconds / 1_000, milliseconds % 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_disagreement_is_told_once_it_has_lasted() {
        let mut beyond = None;
        assert!(is_settled(ClockState::Synchronised, &mut beyond));
        for _ in 0..5 {
            assert!(!is_settled(ClockState::Disagreement, &mut beyond));
            tokio::time::advance(SETTLING / 2).await;
            assert!(is_settled(ClockState::Synchronised, &mut beyond));
        }
        assert!(!is_settled(ClockState::Disagreement, &mut beyond));
        tokio::time::advance(SETTLING).await;
        assert!(is_settled(ClockState::Disagreement, &mut beyond));
        assert!(is_settled(ClockState::Synchronised, &mut beyond));
    }

    #[test]
    fn seconds_have_three_decimals_and_a_sign() {
        assert_eq!(seconds(40_012_345_678), "40.012");
        assert_eq!(seconds(-1_999_999), "-0.001");
        assert_eq!(seconds(0), "0.000");
    }
}
