//! What the init says, noted, remembered and reported.

use enclave_host::duration::milliseconds;
use link::EndCode;
use link::control::{ExitStatus, FromInit, HealthState, WorkloadState};
use link::kms::Calls;
use manifest::WorkloadName;

use super::Supervisor;
use crate::clock::ClockStatus;
use crate::enclave::{Action, BootStep, Code, Health, Input, LimitsStatus, Phase};
use crate::event::RequestError;
use crate::report::Report;
use crate::self_check::SelfCheck;
use crate::throttle::Line;
use crate::traffic::InitPlaces;

impl Supervisor {
    /// Takes in a message of the current control connection.
    pub(super) fn message(&mut self, message: FromInit) -> Option<Action> {
        let action = self.on(Input::Message(&message));
        match message {
            FromInit::Step {
                name,
                at_us,
                took_us,
            } => self.step(BootStep {
                name: name.to_string(),
                at_us,
                took_us,
            }),
            FromInit::Ready { at_us } => self.ready(at_us),
            FromInit::Health { state, detail } => self.health(state, detail.to_string()),
            FromInit::Document { id, document } => {
                self.requests.answer(id, Ok(document.into_vec()));
            }
            FromInit::SecretOpened { id } => self.requests.answer(id, Ok(Vec::new())),
            FromInit::KeysDone { id, answer } => self.requests.answer(id, Ok(answer.into_vec())),
            FromInit::ChallengeFailed { id, reason }
            | FromInit::SecretRefused { id, reason }
            | FromInit::KeysRefused { id, reason } => {
                let refused = RequestError::Refused(reason.to_string());
                self.requests.answer(id, Err(refused));
            }
            FromInit::Clock {
                state,
                source,
                error_us,
                pauses,
                detail,
            } => self.clock(ClockStatus::new(state, &source, error_us, pauses, &detail)),
            FromInit::WorkloadExited {
                status,
                restart_in_ms,
                code,
                workload,
            } => {
                let code = Code::clean(&code);
                self.workload_exited(status, restart_in_ms, code.as_ref(), workload.as_deref());
            }
            FromInit::Workload {
                name,
                state,
                detail,
            } => self.workload(&name, state, &detail),
            FromInit::SelfCheck {
                outcome,
                rule,
                detail,
                document,
            } => self.self_checked(&SelfCheck::new(outcome, &rule, &detail, &document)),
            FromInit::Limits {
                oom_kills,
                pids_refused,
            } => self.limited(LimitsStatus {
                oom_kills,
                pids_refused,
            }),
            FromInit::Lost { losses } => {
                self.board.logs().lost(&losses);
                self.remember();
            }
            FromInit::Ending {
                losses,
                numbered,
                code,
                ..
            } => {
                // A panic waits for no lock, and nobody is stopped for it: its counts
                // may be missing, or be of a moment before the end.
                let in_order = Code::clean(&code).is_none_or(|code| !code.is(EndCode::InitPanic));
                self.board.logs().ended(&losses, &numbered, in_order);
            }
            FromInit::Boot { .. } => {}
            FromInit::Kms {
                calls,
                open,
                waiting,
            } => self.called_kms(&calls, open, waiting),
            FromInit::Secrets(counts) => self
                .board
                .update(|live| live.secrets.get_or_insert_default().told(counts)),
            FromInit::WantsCredentials => self.hand_in_credentials(),
            FromInit::Places {
                egress,
                ingress,
                dropped_datagrams,
            } => self.places(InitPlaces {
                egress: egress.into(),
                ingress: ingress.into(),
                dropped_datagrams,
            }),
        }
        action
    }

    fn limited(&mut self, refused: LimitsStatus) {
        self.board.update(|live| live.limits.told(refused));
        self.remember();
    }

    fn places(&mut self, counts: InitPlaces) {
        self.board.update(|live| live.places.told(counts));
        self.remember();
    }

    /// Reports that the workload is ready, which is told again on every connection.
    fn ready(&self, at_us: u64) {
        // What is ready when it is about to end has not become so.
        if self.enclave.phase() != Phase::Ready {
            return;
        }
        self.notifier.ready();
        let before = self
            .board
            .update(|live| std::mem::replace(&mut live.was_ready, true));
        if !before {
            self.remember();
            self.reporter.report(&Report::Ready {
                at_us,
                elapsed_ms: milliseconds(self.board.uptime()),
            });
        }
    }

    fn called_kms(&self, calls: &[Calls], open: u32, waiting: u32) {
        self.board.update(|live| {
            let kms = live.kms.get_or_insert_default();
            kms.told(calls, open, waiting);
        });
        self.remember();
    }

    fn step(&self, step: BootStep) {
        if Line::BootStep.may_be_written() {
            self.reporter.report(&Report::Step {
                name: &step.name,
                at_us: step.at_us,
                took_us: step.took_us,
            });
        }
        self.board.update(|live| live.step(step));
    }

    fn workload_exited(
        &self,
        status: ExitStatus,
        restart_in_ms: Option<u64>,
        code: Option<&Code>,
        workload: Option<&str>,
    ) {
        // What is no name is none.
        let workload = workload.filter(|name| name.parse::<WorkloadName>().is_ok());
        let place = self.board.update(|live| {
            if restart_in_ms.is_some() {
                live.restarts += 1;
                if let Some(name) = workload {
                    live.workloads.restarted(name);
                }
            }
            workload.and_then(|name| live.workloads.place(name))
        });
        if restart_in_ms.is_some() {
            self.remember();
        }
        let line = Line::WorkloadExited;
        if place.map_or_else(
            || line.may_be_written(),
            |place| line.may_be_written_of(place),
        ) {
            self.reporter.report(&Report::WorkloadExited {
                status: status.into(),
                restart_in_ms,
                code,
                workload,
            });
        }
    }

    /// Reports one of several workloads when it is otherwise than before.
    fn workload(&self, name: &str, state: WorkloadState, detail: &str) {
        let news = self.board.update(|live| {
            let workload = live.workloads.told(name, state, detail).cloned()?;
            Some((live.workloads.place(name)?, workload))
        });
        let Some((place, workload)) = news else {
            return;
        };
        self.remember();
        if Line::Workload.may_be_written_of(place) {
            self.reporter.report(&Report::Workload(&workload));
        }
    }

    /// Reports the clock when its state changes.
    fn clock(&self, mut clock: ClockStatus) {
        let before = self.board.update(|live| {
            let before = live.clock.as_ref();
            // Counts only grow, whatever the enclave says.
            clock.pauses = before.map_or(0, |before| before.pauses).max(clock.pauses);
            live.clock.replace(clock.clone())
        });
        if before.is_none_or(|before| clock.differs(&before)) && Line::Clock.may_be_written() {
            self.reporter.report(&Report::Clock(&clock));
        }
    }

    /// Reports the self-check, which is told again on every connection.
    fn self_checked(&self, found: &SelfCheck) {
        let changed = self.board.update(|live| {
            let changed = live.self_check.as_ref() != Some(found);
            live.self_check = Some(found.clone());
            changed
        });
        if changed {
            self.remember();
            if Line::SelfCheck.may_be_written() {
                self.reporter.report(&Report::SelfCheck(found));
            }
        }
    }

    /// Reports health when it changes.
    fn health(&mut self, state: HealthState, detail: String) {
        let state = match state {
            HealthState::Starting => "starting",
            HealthState::Healthy => Health::HEALTHY,
            HealthState::Unhealthy => "unhealthy",
        };
        let health = Health {
            state: state.to_owned(),
            detail,
        };
        let changed = self.board.update(|live| {
            let changed = live.health != health;
            live.health = health.clone();
            changed
        });
        if changed && Line::Health.may_be_written() {
            let Health { state, detail } = &health;
            let phase = self.enclave.phase();
            self.notifier
                .status(&format!("the enclave is {phase}, {state}: {detail}"));
            self.reporter.report(&Report::Health(&health));
        }
    }
}
