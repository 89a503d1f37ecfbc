//! The life of an enclave as a state machine: what is heard goes in, what is to
//! be done comes out. No clock, no input or output.
//!
//! Starting → Booting → Ready → Ending → Ended. Until the end there is always a
//! deadline, except while the hypervisor is being started, which has its own.

mod code;
mod condition;
mod end;
mod panic;
mod phase;

use std::time::Duration;

use link::control::FromInit;
use manifest::MAX_STOP_GRACE;
use tokio::time::Instant;

pub use code::Code;
pub use condition::{
    BootStep, Health, LimitsStatus, SecretsStatus, WorkloadHealth, WorkloadsHealth,
};
pub use end::{Cause, End};
pub use phase::Phase;

use crate::kernel_panic::KernelPanic;

use end::Announced;

/// The longest silence of an enclave that is ready, or ending: it says
/// something every [`link::control::HEALTH_INTERVAL_MS`].
pub const MAX_SILENCE: Duration = Duration::from_secs(60);
/// How long an enclave may be without a control connection before it counts as dead.
pub const MAX_DISCONNECTED: Duration = Duration::from_secs(10);
/// How long the machine may go on after its init has announced the end.
pub const MAX_POWER_OFF: Duration = Duration::from_secs(10);
/// How long an enclave may take to stop if nobody says how long: as long as its
/// manifest may give the workload.
pub const MAX_STOP: Duration = MAX_STOP_GRACE;
/// What an enclave gets on top of the grace that was asked for.
pub const STOP_MARGIN: Duration = Duration::from_secs(10);
/// How long a killed enclave may take to be gone.
pub const MAX_KILL: Duration = Duration::from_secs(10);

/// What happened.
#[derive(Debug, Clone)]
pub enum Input<'a> {
    /// The hypervisor runs the machine.
    Started,
    /// The enclave's first sign of life.
    Heartbeat,
    /// A control connection was opened.
    Connected,
    /// A control connection of another boot was opened.
    ConnectedAgain,
    /// The control connection was lost.
    Disconnected,
    /// The init said something.
    Message(&'a FromInit),
    /// The init and this agent do not understand each other.
    Incompatible(String),
    /// Somebody asks for the end.
    Stop {
        /// What the workload gets between the stop signal and SIGKILL, if not the manifest's.
        grace: Option<Duration>,
        /// Whether a second request means that patience has ended.
        insists: bool,
    },
    /// The console shows that its kernel has panicked.
    Panicked(KernelPanic),
    /// The machine has ended, in these words.
    Exited(String),
    /// This agent was not run for so long: nothing could be heard meanwhile.
    Lost(Duration),
    /// The deadline has passed.
    Deadline,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Ask the init to stop.
    SendShutdown {
        /// The grace that was asked for.
        grace: Option<Duration>,
    },
    /// Kill the machine.
    Kill,
}

/// A request to stop.
#[derive(Debug, Clone, Copy)]
struct Stop {
    grace: Option<Duration>,
}

/// The control connection, from the least that is known of it to the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Connection {
    /// There was none yet.
    Never,
    /// An earlier agent may have had one; the next is about to be opened.
    Awaited,
    /// There was one.
    Lost,
    /// There is one.
    Open,
}

/// An enclave's life so far.
#[derive(Debug)]
pub struct Enclave {
    phase: Phase,
    boot_timeout: Duration,
    connection: Connection,
    /// Whether there was a heartbeat since the last control connection was opened.
    beat_again: bool,
    was_ready: bool,
    /// The last thing that was heard, for people.
    progress: String,
    deadline: Option<Instant>,
    /// The end at the latest, once a stop was asked for or the init has announced one.
    end_by: Option<Instant>,
    stop: Option<Stop>,
    /// What the init gave as the reason of its end.
    announced: Option<Announced>,
    /// Why the machine was killed.
    killed: Option<End>,
    /// What its kernel has panicked of, and when the machine has ended at the latest.
    panic: Option<(KernelPanic, Instant)>,
    end: Option<End>,
}

impl Enclave {
    /// An enclave that is about to be started, and may be silent for
    /// `boot_timeout` at a time until it is ready.
    pub fn new(boot_timeout: Duration) -> Self {
        Self {
            phase: Phase::Starting,
            boot_timeout,
            connection: Connection::Never,
            beat_again: false,
            was_ready: false,
            progress: "it gave no heartbeat".to_owned(),
            deadline: None,
            end_by: None,
            stop: None,
            announced: None,
            killed: None,
            panic: None,
            end: None,
        }
    }

    /// An enclave that was running already at `now`, when this agent took it
    /// over: it was connected to an earlier agent, and perhaps ready, if
    /// `was_connected` and `was_ready`.
    pub fn attached(
        boot_timeout: Duration,
        was_connected: bool,
        was_ready: bool,
        now: Instant,
    ) -> Self {
        let mut enclave = Self::new(boot_timeout);
        enclave.running();
        enclave.connection = Connection::Awaited;
        if was_connected {
            enclave.connection = Connection::Lost;
            enclave.say("its boot had begun, but it opened no control connection to this agent");
        }
        enclave.alive(now);
        if was_ready {
            enclave.phase = Phase::Ready;
            enclave.was_ready = true;
            enclave.deadline = Some(now + MAX_DISCONNECTED);
        }
        enclave
    }

    /// Where it is in its life.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// How it ended, once it has.
    pub fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    /// When [`Input::Deadline`] is due.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Takes note of what happened at `now`, and says what is to be done.
    pub fn on(&mut self, input: Input<'_>, now: Instant) -> Option<Action> {
        if self.phase == Phase::Ended {
            return None;
        }
        match input {
            Input::Exited(how) => {
                self.ended(&how);
                None
            }
            Input::Lost(time) => {
                self.lost(time);
                None
            }
            Input::Deadline => self.late(now),
            Input::Stop { grace, insists } => self.stop(grace, insists, now),
            // What a killed machine still says changes nothing.
            _ if self.killed.is_some() => None,
            Input::Panicked(panic) => {
                self.panicked(panic, now);
                None
            }
            Input::Started => {
                self.running();
                self.alive(now);
                None
            }
            // What runs after an announced end is another boot.
            Input::Heartbeat if self.announced.is_some() => Some(self.booted_again(now)),
            // One byte proves nothing: another boot shows in its control connection, or
            // in that there is none.
            Input::Heartbeat if self.connection >= Connection::Lost => {
                self.beat_again = true;
                None
            }
            // Every boot begins with a heartbeat. Without one, and beside a connection
            // of the boot that is known, it is a lie.
            Input::ConnectedAgain if self.is_connected() && !self.beat_again => None,
            Input::ConnectedAgain => Some(self.booted_again(now)),
            Input::Heartbeat => {
                self.running();
                self.say("it gave its heartbeat, but opened no control connection");
                self.alive(now);
                None
            }
            Input::Connected => {
                self.running();
                self.beat_again = false;
                self.connection = Connection::Open;
                self.say("its boot has begun");
                self.alive(now);
                // The request may have been lost with the connection before.
                self.stop
                    .map(|Stop { grace }| Action::SendShutdown { grace })
            }
            Input::Disconnected => {
                self.connection = Connection::Lost;
                if self.announced.is_none() {
                    self.deadline = Some(self.capped(now + MAX_DISCONNECTED));
                }
                None
            }
            Input::Message(message) => {
                self.heard(message, now);
                None
            }
            // Later it is somebody other than the init.
            Input::Incompatible(_) if self.is_connected() || self.phase > Phase::Booting => None,
            Input::Incompatible(reason) => Some(self.kill(Cause::BootFailed, reason, now)),
        }
    }

    fn heard(&mut self, message: &FromInit, now: Instant) {
        match message {
            FromInit::Step { name, .. } => {
                self.say(&format!("its last boot step was `{name}`"));
            }
            FromInit::Ready { .. } if self.phase == Phase::Booting => {
                self.phase = Phase::Ready;
                self.was_ready = true;
            }
            FromInit::Ending {
                cause,
                detail,
                code,
                workload,
                ..
            } => {
                let is_first = self.announced.is_none();
                self.announced = Some(Announced {
                    cause: *cause,
                    words: detail.to_string(),
                    code: Code::clean(code),
                    // What is no name is none.
                    workload: workload.as_ref().and_then(|name| name.parse().ok()),
                });
                self.phase = Phase::Ending;
                // Whatever it says from now on gives it no more time.
                if is_first {
                    self.end_by = Some(now + MAX_POWER_OFF);
                }
                self.deadline = self.end_by;
                return;
            }
            _ => {}
        }
        if self.announced.is_none() {
            if self.was_ready {
                self.panic = None;
            }
            self.alive(now);
        }
    }

    fn stop(&mut self, grace: Option<Duration>, insists: bool, now: Instant) -> Option<Action> {
        if self.stop.is_some() || self.killed.is_some() || self.announced.is_some() {
            if insists && self.killed.is_none() {
                return Some(self.kill(Cause::Killed, "it was told twice to stop".to_owned(), now));
            }
            return None;
        }
        self.stop = Some(Stop { grace });
        if self.connection > Connection::Never {
            self.phase = Phase::Ending;
            self.end_by = Some(now + grace.map_or(MAX_STOP, |grace| grace + STOP_MARGIN));
            if !self.is_connected() {
                // It is told when it is back.
                self.deadline = Some(self.capped(now + MAX_DISCONNECTED));
                return None;
            }
            self.alive(now);
            Some(Action::SendShutdown { grace })
        } else {
            // It has no ear yet.
            let phase = self.phase;
            Some(self.kill(Cause::Stopped, format!("stopped while {phase}"), now))
        }
    }

    /// Moves the deadlines: the enclave was not silent, this agent was deaf.
    fn lost(&mut self, time: Duration) {
        for deadline in [&mut self.deadline, &mut self.end_by] {
            *deadline = deadline.and_then(|deadline| deadline.checked_add(time));
        }
        if let Some((_, by)) = &mut self.panic {
            *by = by.checked_add(time).unwrap_or(*by);
        }
    }

    fn late(&mut self, now: Instant) -> Option<Action> {
        if self.deadline.is_none_or(|deadline| now < deadline) {
            return None;
        }
        if let Some(end) = self.killed.take() {
            self.end_as(End {
                detail: format!(
                    "{}; its processes did not end when they were killed",
                    end.detail
                ),
                ..end
            });
            return None;
        }
        if let Some(announced) = self.announced.take() {
            let end = end::announced(announced);
            let detail = format!(
                "{}; its machine was still on {} s later and was killed",
                end.detail,
                MAX_POWER_OFF.as_secs()
            );
            return Some(self.kill_as(End { detail, ..end }, now));
        }
        if let Some((panic, by)) = &self.panic
            && now >= *by
        {
            let end = self.end_of_panic(panic);
            return Some(self.kill_as(end, now));
        }
        if self.beat_again && !self.is_connected() {
            return Some(self.booted_again(now));
        }
        if self.end_by.is_some_and(|by| now >= by) {
            let detail = match self.stop {
                Some(Stop { grace: Some(grace) }) => {
                    format!("it did not stop within {} s", grace.as_secs())
                }
                _ => format!(
                    "it did not stop within {} s; `stop --grace` gives it longer",
                    MAX_STOP.as_secs()
                ),
            };
            return Some(self.kill(Cause::Killed, detail, now));
        }
        if self.phase == Phase::Booting {
            let detail = format!(
                "{} within {} s; --console shows what it prints, --boot-timeout gives it longer",
                self.progress_without_sign(),
                self.boot_timeout.as_secs()
            );
            return Some(self.give_up(Cause::BootFailed, detail, now));
        }
        let (cause, what) = match self.stop {
            Some(_) => (Cause::Killed, "while it was stopping"),
            None => (Cause::Died, "and was killed"),
        };
        let detail = if self.is_connected() {
            format!("it was silent for {} s {what}", MAX_SILENCE.as_secs())
        } else {
            format!(
                "its control connection was lost for {} s {what}",
                MAX_DISCONNECTED.as_secs()
            )
        };
        Some(self.give_up(cause, detail, now))
    }

    fn progress_without_sign(&self) -> String {
        if self.is_connected() {
            format!("{}, and it said nothing more", self.progress)
        } else {
            self.progress.clone()
        }
    }

    fn ended(&mut self, how: &str) {
        let end = if let Some(end) = self.killed.take() {
            end
        } else if let Some(announced) = self.announced.take() {
            end::announced(announced)
        } else if let Some((panic, _)) = &self.panic {
            self.end_of_panic(panic)
        } else if self.stop.is_some() {
            End::new(Cause::Died, format!("{how} while it was stopping"))
        } else if self.was_ready {
            End::new(Cause::Died, how.to_owned())
        } else {
            let detail = format!("{how} before it was ready: {}", self.progress);
            End::new(Cause::BootFailed, detail)
        };
        self.end_as(end);
    }

    /// A machine that starts again, as one that nothing powers off does, has
    /// come to its end: what runs next is another boot.
    fn booted_again(&mut self, now: Instant) -> Action {
        let end = match self.announced.take() {
            Some(announced) => end::announced(announced),
            None if self.was_ready => End::new(Cause::Died, "its machine started again".to_owned()),
            None => End::new(
                Cause::BootFailed,
                format!(
                    "its machine started again before it was ready: {}",
                    self.progress
                ),
            ),
        };
        self.kill_as(end, now)
    }

    fn kill(&mut self, cause: Cause, detail: String, now: Instant) -> Action {
        self.kill_as(End::new(cause, detail), now)
    }

    fn kill_as(&mut self, end: End, now: Instant) -> Action {
        self.phase = Phase::Ending;
        self.killed = Some(end);
        self.deadline = Some(now + MAX_KILL);
        Action::Kill
    }

    /// Kills what was not heard of for too long.
    fn give_up(&mut self, cause: Cause, detail: String, now: Instant) -> Action {
        let action = self.kill(cause, detail, now);
        if let Some(end) = &mut self.killed {
            end.is_silence = true;
        }
        action
    }

    fn end_as(&mut self, end: End) {
        self.phase = Phase::Ended;
        self.deadline = None;
        self.end = Some(end);
    }

    /// The machine may be heard before the hypervisor says that it runs.
    fn running(&mut self) {
        if self.phase == Phase::Starting {
            self.phase = Phase::Booting;
        }
    }

    fn alive(&mut self, now: Instant) {
        let silence = match self.phase {
            Phase::Booting => self.boot_timeout,
            _ => MAX_SILENCE,
        };
        self.deadline = Some(self.capped(now + silence));
    }

    fn capped(&self, deadline: Instant) -> Instant {
        let panic_by = self.panic.as_ref().map(|(_, by)| *by);
        [self.end_by, panic_by]
            .into_iter()
            .flatten()
            .fold(deadline, Instant::min)
    }

    fn is_connected(&self) -> bool {
        self.connection == Connection::Open
    }

    fn say(&mut self, progress: &str) {
        progress.clone_into(&mut self.progress);
    }
}

#[cfg(test)]
mod tests;
